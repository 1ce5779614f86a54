"""Which episodes of a finished data set are held out: a tenth, drawn by a stream of the set's name."""

from __future__ import annotations

from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError

HELD_OUT = 0.1  # of the episodes


def hold_out(every: Trajectories) -> tuple[Trajectories, Trajectories]:
    """Training and held-out episodes, each in their original order.

    The draw depends on the name and the number of episodes only, and takes at least one episode.
    Raises UserError when there are fewer than two.
    """
    count = every.num_episodes
    if count < 2:
        raise UserError(f"{every.name}: {count} episode; at least 2 are needed to hold one out.")
    order = stream("data", 0, f"{every.name}/split").permutation(count)
    held = max(1, round(HELD_OUT * count))
    return every.select(sorted(order[held:].tolist())), every.select(sorted(order[:held].tolist()))
