"""Which episodes of a finished data set are held out: a share, drawn by a stream of the set's name."""

from __future__ import annotations

from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError

HELD_OUT = 0.1  # of the episodes


def hold_out(every: Trajectories, share: float = HELD_OUT) -> tuple[Trajectories, Trajectories]:
    """Training and held-out episodes, each in their original order.

    The draw depends on the name and the number of episodes only, and takes at least one episode and not
    all of them. With a share of 0 nothing is held out: both parts are all episodes, and what is measured
    on the second is no measure of generalisation. Raises UserError when there are fewer than two to draw
    from.
    """
    count = every.num_episodes
    if share == 0.0:
        return every, every
    if count < 2:
        raise UserError(
            f"{every.name}: {count} episode; at least 2 are needed to hold one out. Train on it with"
            " `held_out: 0` (--held-out 0)."
        )
    order = stream("data", 0, f"{every.name}/split").permutation(count)
    held = min(max(1, round(share * count)), count - 1)
    return every.select(sorted(order[held:].tolist())), every.select(sorted(order[:held].tolist()))
