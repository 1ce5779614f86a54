"""The measurement `held-out`: prediction in episodes that no model learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ablate.measure.base import Measurement, Trained
from ablate.registry import Section, later, register
from ablate.words import Response

RESPONSES = (
    Response("action_error", unit="of the action variance", direction="lower"),
    Response(
        "action_error_early",
        label="early action error",
        unit="of the action variance",
        direction="lower",
    ),
    Response("action_nll", label="held-out action NLL", unit="nats", direction="lower"),
    Response("loss", label="held-out loss", direction="lower"),
    Response("timestep_nll", label="held-out NLL of a timestep", unit="nats", direction="lower"),
)


@register("measurement", "held-out")
class HeldOutPrediction(Measurement):
    """How well the models predict what happened in episodes that none of them learned from."""

    responses = RESPONSES

    class Options(Section):
        """timesteps: how many held-out ones are predicted, or all that there are where there are fewer; null: 4,096 of
        a policy, 512 whole windows of a joint model. All seeds share the sample, so that intervals don't hold for
        another one: ask for all of them where an error is compared with a number."""

        timesteps: int | None = later(None, gt=0)

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, np.ndarray]:
        """See `Measurement`; what a system doesn't predict is NaN."""
        system = trained.system
        held = system.held(trained.streams, trained.models, options.timesteps)
        groups = [trained.models] if system.stacks else [[model] for model in trained.models]
        found = [system.predict(system.program(list(group)), held) for group in groups]
        undefined = np.full(len(trained.models), np.nan)
        given = {n: np.concatenate([each[n].cpu().numpy() for each in found]) for n in found[0]}
        given["loss"] = given.get("heldout_loss", undefined)
        return {response.name: given.get(response.name, undefined) for response in RESPONSES}
