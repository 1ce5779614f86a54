"""Heads: what turns a feature into a distribution over M numbers.

In a policy these are one timestep's action in [-1, 1]^M. In a joint model (`ablate.models.slots`) they are the
numbers that one token predicts: a head that is `chained` serves all of a token's numbers at once, any other one
number each. So a head that is written for actions predicts whole trajectories too; its numbers are then scaled
so that the training data fill [-1, 1]. Two options, which a head may know, let it do better there:

    bounded: False where the numbers are standardised instead of bounded by [-1, 1].
    valid: (M, N) bool, which of N bins exist. The numbers are then bins 0 .. N-1, and N says that the episode is
        over; where the bins lie is known outside.

Every method broadcasts over leading dimensions and runs under `torch.func.vmap`. Densities are in
action units and for the whole timestep (all M dimensions together), so that heads with a density
can be compared.
"""

from ablate.models.heads import binned, continuous, softmax
from ablate.models.heads.base import Head

__all__ = ["Head", "binned", "continuous", "softmax"]
