"""An algorithm of one's own: cloning of what is seen through noise, and the factors that it reads.

It counts a window's last action and computes in float32, and says so in `uses`: a study that varies `train.loss` of it
is refused before anything runs, as every level would train the same model.

    python -m ablate run examples/noisy.yaml
"""

import torch
from pydantic import Field

from ablate.data.streams import torch_stream
from ablate.learn.objective import Objective
from ablate.registry import Section, register


@register("algorithm", "noisy-bc", label="BC through noise")
class NoisyCloning(Objective):
    """The head's loss of the logged action, given a window whose numbers have noise added to them."""

    class Settings(Section):
        """`settings.noise` may be a factor."""

        noise: float = Field(default=0.1, ge=0)  # standard deviation, of numbers about 1 in size

    losses = ("last",)

    @classmethod
    def uses(cls, config):
        """All that cloning reads, but what `update` doesn't."""
        return super().uses(config) - {"train.loss", "train.windows", "train.precision"}

    def update(self, batch, rate):
        """Train S models on a batch of targets (S, B); their losses (S,)."""
        seen, rows, lengths = self.source.ending(batch.targets)  # (S, B, K, F), (S, B, K), (S, B)
        noise = [torch_stream(self.study, seed, f"noise {batch.update}") for seed in self.seeds]
        drawn = torch.stack([torch.randn(seen.shape[1:], generator=one) for one in noise])
        params = self.stack(seen + self.settings.noise * drawn.to(seen), lengths)  # (S, B, P)
        loss = self.stack.head.loss(params, self.source.actions[rows[..., -1]]).mean(1)
        self.policy_step(loss, rate)
        return loss.detach()
