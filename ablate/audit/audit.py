"""The audit: what does a model's output depend on?

Every logged quantity at every lag is altered, in training shape (windows cut from stored episodes)
and in acting shape (one timestep after another). A model passes when nothing from the future, from
beyond the context, from padding, from what the history hides or from other windows, episodes and
replicas reaches its output, everything that is declared does, and every way of running it gives the
same output. It is run on synthetic episodes with fresh weights, in double precision, so that "no
influence" means none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ablate.audit import checks
from ablate.audit.probe import Lab, Reader
from ablate.audit.result import SHAPES, Audit
from ablate.audit.trajectories import LONGEST, examine
from ablate.data import streams
from ablate.data.normalise import Scales
from ablate.errors import UserError
from ablate.models.agent import Agent, stored
from ablate.models.assembly import Model, build
from ablate.models.discretise import Discretiser
from ablate.models.layouts import Layout
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.registry import get

OBSERVATIONS, ACTIONS, POLICIES, GOAL = 3, 2, 3, (0, 1)  # of the synthetic data
HORIZON = 100
BINS = 7  # of a joint model


def audit(
    model: Agent | Model,
    *,
    context: int | None = None,
    mixer: str | None = None,
    head: str | None = None,
    condition: str = "none",
    history: str = "states+actions+rewards",
    read: Reader = stored,
) -> Audit:
    """Audit a policy, as the agent that reads data for it, or a joint model; leaves it in evaluation mode.

    context: K as declared, by default the model's own. mixer, head: names to report, by default those of its
    specification; so are condition and history of a joint model. read: what turns trajectories into the fields a
    policy reads. Errors which the model raises become findings.
    """
    if isinstance(model, Agent):
        return _audit(Lab(model, context or model.context, read), mixer, head)
    spec = model.spec
    size = context or spec.context
    result = Audit(mixer or spec.mixer, size, history, condition, head or spec.head, ())
    model.eval()

    def check() -> list[str]:
        examine(model, result, size)
        return []

    _attempt(result, "joint", check)
    return result


def audit_config(
    mixer: str,
    context: int,
    history: str = "states+actions",
    condition: str = "none",
    head: str = "mse",
    *,
    layers: int = 2,
    width: int = 16,
    state: str = "re-encoded",
    predicts: str = "action",
    **options: Any,
) -> Audit:
    """Audit a registered mixer in a policy, alone and as a stack of two replicas, or in a joint model.

    On synthetic data.

    The width does not change what a model can see; a small one keeps this below a second. It is
    rounded up to the mixer's `width_multiple`. options: further fields of `ModelSpec`, e.g. layout.
    state: what acting does when the context is full. predicts: "action", or "all". Dropout is off. Raises
    UserError for unknown names, and for a state that the mixer cannot carry.
    """
    if predicts == "all":
        return _audit_joint(mixer, context, history, condition, head, layers, width, options)
    table = options.get("timesteps", 0) > 0
    layout = Layout(OBSERVATIONS, ACTIONS, POLICIES, history, condition, GOAL, table)
    spec = ModelSpec(
        mixer=mixer,
        head=head,
        context=context,
        features=layout.features,
        action_dim=ACTIONS,
        width=_width(mixer, width, options),
        layers=layers,
        columns=tuple(layout.columns),
        **options,
    )
    generator = streams.stream("audit", 0, "scales")
    scales = Scales(
        mean=torch.from_numpy(generator.normal(size=OBSERVATIONS)),
        std=torch.from_numpy(generator.uniform(0.5, 2.0, OBSERVATIONS)),
        reward=2.0,
        return_to_go=5.0,
        horizon=HORIZON,
    )
    actions = generator.uniform(-1, 1, (256, ACTIONS))
    if get("head", head).choices:
        actions = np.where(actions == actions.max(axis=1, keepdims=True), 1.0, -1.0)

    def lab(replicas: int) -> Lab:
        policies = [
            build(spec, streams.torch_stream("audit", seed, "init"), actions).double()
            for seed in range(replicas)
        ]
        return Lab(Agent(Stack(policies), layout, scales, context, state), context, stored)

    try:
        alone, stacked = lab(1), lab(2)
    except UserError:
        raise
    except Exception as error:
        line = f"does-not-run (initialisation): {_first_line(error)}"
        return Audit(mixer, context, history, condition, head, (), findings=[line])
    result = _audit(alone, mixer, head)
    if not any(finding.startswith("does-not-run") for finding in result.findings):
        check = (partial(checks.replicas, stacked), partial(checks.stacking, alone, stacked))
        all(_attempt(result, "stacked", each) for each in check)
    return result


def _audit_joint(
    mixer: str,
    context: int,
    history: str,
    condition: str,
    head: str,
    layers: int,
    width: int,
    options: dict[str, Any],
) -> Audit:
    """`audit_config` of a joint model, which is told a goal or a return first where the condition says so."""
    layout = Layout(OBSERVATIONS, ACTIONS, POLICIES, history, condition, GOAL)
    prefix = tuple((name, each.width(layout)) for name, each in layout.conditions.items())
    shown = min(LONGEST, context)
    spec = ModelSpec.joint(
        {"mixer": mixer, "head": head, "context": shown, "model": {}}, OBSERVATIONS, ACTIONS
    )
    size = _width(mixer, width, options)
    spec = replace(spec, **{"bins": BINS, **options}, width=size, layers=layers, prefix=prefix)
    rows = streams.stream("audit", 0, "joint").normal(size=(256, spec.slots))
    try:
        made = build(
            spec,
            streams.torch_stream("audit", 0, "init"),
            rows,
            Discretiser.fit(rows, spec.bins),
            rows[:, : sum(count for _, count in prefix)],
        )
    except UserError:
        raise
    except Exception as error:
        line = f"does-not-run (initialisation): {_first_line(error)}"
        return Audit(mixer, context, history, condition, head, (), findings=[line])
    return audit(made.double(), context=context, condition=condition, history=history)


def _width(mixer: str, width: int, options: dict[str, Any]) -> int:
    """The width, rounded up to what mixer and attention heads ask for."""
    # A rotary head needs an even number of dimensions.
    heads = 2 * options["heads"] if options.get("heads", 1) > 1 else 1
    multiple = math.lcm(get("mixer", mixer, "mixer").width_multiple, heads)
    return -(-width // multiple) * multiple


def refuse(result: Audit) -> None:
    """Raises UserError, in one line, when the audit found a fault: such a model doesn't train."""
    if not result.passed:
        more = len(result.findings) - 1
        also = f" And {more} more; see `python -m ablate audit {result.mixer}`." if more else ""
        raise UserError(f"audit: {result.name}: refused. {result.findings[0]}{also}")


def _audit(lab: Lab, mixer: str | None, head: str | None) -> Audit:
    layout, spec = lab.agent.layout, lab.agent.stack.spec
    wanted = checks.required(lab)
    free = {shape: checks.allowed(lab, shape) for shape in SHAPES}
    result = Audit(
        mixer=mixer or spec.mixer,
        context=lab.context,
        history=layout.history,
        condition=layout.condition,
        head=head or spec.head,
        lags=lab.lags,
        declared={name: sorted(wanted[name]) for name in lab.fields},
        state=lab.agent.state,
        allowed={s: {name: sorted(free[s][name]) for name in lab.fields} for s in SHAPES},
    )
    found: dict[str, np.ndarray] = {}

    def receptive_field(shape: str, leaks: bool) -> list[str]:
        found[shape] = checks.influence(lab, shape, alone=leaks)
        return checks.receptive_field(lab, shape, found[shape])

    sound = {}
    for shape in SHAPES:
        before = len(result.findings)
        runs = _attempt(result, shape, partial(checks.batch, lab, shape))
        sound[shape] = len(result.findings) == before
        if runs:
            # A leak along the batch would show as influence of everything: run one by one, then.
            _attempt(result, shape, partial(receptive_field, shape, not sound[shape]))
    if len(found) == len(SHAPES):
        result.receptive = {
            name: {shape: _strongest(found[shape][lab.fields.index(name)]) for shape in SHAPES}
            for name in lab.fields
        }
    # The rest compares rows of one batch with each other, which says nothing where rows leak.
    if sound["training"]:
        _attempt(result, "padding", partial(checks.padding, lab))
        _attempt(result, "all positions", partial(checks.positions, lab))
    if all(sound.values()):
        _attempt(result, "step", partial(checks.carried_state, lab))
        _attempt(result, "acting", partial(checks.shapes_agree, lab))
        _attempt(result, "stacked", partial(checks.replicas, lab))
    lab.mode("acting")
    return result


def _attempt(result: Audit, where: str, check: Callable[[], list[str]]) -> bool:
    """Add the findings of a check; what the model raises is a finding too. Whether it ran."""
    try:
        result.findings += check()
    except UserError:
        raise
    except Exception as error:
        result.findings.append(f"does-not-run ({where}): {_first_line(error)}")
        return False
    return True


def _strongest(found: np.ndarray) -> list[float]:
    """(times, lags) to the largest of each lag; what does not exist has no influence."""
    return np.nan_to_num(found).max(axis=0).tolist()


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {line}."
