"""Environments as tensors that stay on a device: what `ablate.envs` steps in numpy, stepped where the policy is.

Episodes begin in the environment itself, on the host, since their noise comes from seeds; all of it is laid on the
device at once, and no step copies anything to the host. States, rewards and endings are float64 as there, and on a
CPU equal to the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ablate.envs import lq, tmaze
from ablate.envs.base import MaskedEnv, SimulatedEnv, VectorEnv
from ablate.envs.forkcommit import SPEED, ForkCommit
from ablate.envs.lq import LinearQuadratic
from ablate.envs.tabular import Tabular
from ablate.envs.tmaze import TMaze

Told = dict[str, Tensor]
DeviceStep = tuple[Tensor, Tensor, Tensor, Tensor, Told]


def on_device(env: VectorEnv, device: torch.device | str) -> DeviceEnv | None:
    """The environment on a device; None where it can't be stepped there."""
    if isinstance(env, MaskedEnv):
        inner = on_device(env.env, device)
        return None if inner is None else Masked(inner, env)
    if isinstance(env, ForkCommit) and (env.forks > 1 or env.cue != "first"):
        return None
    for kind, twin in TWINS.items():
        if isinstance(env, kind):
            return twin(env, torch.device(device))
    return None


class DeviceEnv(ABC):
    """B episodes that begin together; `reset` and `step` are those of `ablate.envs.base.VectorEnv`, in tensors.

    Attributes:
        horizon: the step at which an episode is truncated at the latest.
    """

    env: VectorEnv
    horizon: int

    def goals(self) -> np.ndarray | None:
        """See `VectorEnv.goals`."""
        return self.env.goals()

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Start one episode a seed; returns observations (B, N) float32."""

    @abstractmethod
    def step(self, actions: Tensor) -> DeviceStep:
        """Advance every episode that isn't done by one step; actions (B, M) must be finite. At most `horizon` times."""


class Masked(DeviceEnv):
    """What `MaskedEnv` shows of an environment on a device."""

    def __init__(self, inner: DeviceEnv, env: MaskedEnv) -> None:
        self.env, self.inner, self.observable = env, inner, list(env.observable)
        self.horizon = inner.horizon

    def reset(self, seeds: Sequence[int]) -> Tensor:
        return self._shown(self.inner.reset(seeds))

    def step(self, actions: Tensor) -> DeviceStep:
        observations, *rest = self.inner.step(actions)
        return self._shown(observations), *rest  # type: ignore[return-value]

    def _shown(self, observations: Tensor) -> Tensor:
        return torch.stack([observations[:, column] for column in self.observable], dim=1)


class Twin(DeviceEnv):
    """The books that `SimulatedEnv` keeps, around `advance`.

    Attributes:
        own: what the environment's `per_place` names, on the device. now: steps taken.
    """

    env: SimulatedEnv

    def __init__(self, env: SimulatedEnv, device: torch.device) -> None:
        self.env, self.device, self.horizon = env, device, env.horizon

    def reset(self, seeds: Sequence[int]) -> Tensor:
        seen = self.env.reset(seeds)
        assert self.env.per_place is not None
        self.own = {name: self.laid(getattr(self.env, name)) for name in self.env.per_place}
        self.now = 0
        self.last = self.laid(seen)
        self.terminated = torch.zeros(len(seeds), dtype=torch.bool, device=self.device)
        self.truncated = self.terminated
        self.told: Told = {}
        return self.last

    def step(self, actions: Tensor) -> DeviceStep:
        alive = ~(self.terminated | self.truncated)
        observations, rewards, terminations, told = self.advance(
            actions.to(torch.float64).clamp(-1.0, 1.0)
        )
        self.now += 1
        self.last = torch.where(alive[:, None], observations.to(torch.float32), self.last)
        self.terminated = self.terminated | (alive & terminations)
        if self.now >= self.horizon:
            self.truncated = self.truncated | (alive & ~terminations)
        old = self.told
        self.told = {
            key: torch.where(alive, value, old.get(key, value)) for key, value in told.items()
        }
        rewards = torch.where(alive, rewards, 0.0)
        return self.last, rewards, self.terminated, self.truncated, dict(self.told)

    def laid(self, values: np.ndarray) -> Tensor:
        """A copy on the device."""
        return torch.tensor(values).to(self.device)

    @abstractmethod
    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Told]:
        """See `SimulatedEnv._advance`; actions (B, M) float64 in [-1, 1]."""


class DeviceLQ(Twin):
    """See `ablate.envs.lq`. Sums are formed in the order in which numpy's einsum forms them."""

    def __init__(self, env: LinearQuadratic, device: torch.device) -> None:
        super().__init__(env, device)
        self.dynamics, self.input = self.laid(lq.A), self.laid(lq.B)
        self.state_cost = self.laid(np.diag(lq.STATE_COST))
        self.action_cost = self.laid(np.diag(lq.ACTION_COST))
        self.spread = bool(env._spread)

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Told]:
        state, force = self.own["_state"], lq.ACTION_SCALE * actions
        cost = _in_order(state * self.state_cost * state) + _in_order(
            force * self.action_cost * force
        )
        rewards = -cost.clamp(max=lq.COST_CAP) / lq.COST_DIVISOR
        p = state[:, None] * self.dynamics  # (B, 4, 4)
        moved = (p[..., 0] + p[..., 2]) + (p[..., 1] + p[..., 3])
        after = moved + _in_order(force[:, None] * self.input) + self.own["_noise"][:, self.now]
        if self.spread:
            after[:, 2:] -= self.own["_brake"] * state[:, 2:]
        self.own["_state"] = after
        return after, rewards, torch.zeros_like(self.terminated), {}


class DeviceTMaze(Twin):
    """See `ablate.envs.tmaze`."""

    env: TMaze

    def __init__(self, env: TMaze, device: torch.device) -> None:
        super().__init__(env, device)
        self.moves = self.laid(tmaze.MOVES)

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Told]:
        own, distance, length = self.own, self.env.oracle_distance, self.env.length
        time, junction = self.now + 1, distance + length
        move = self.moves[actions.argmax(1)]  # (B, 2)
        x, y = own["_x"] + move[:, 0], own["_y"] + move[:, 1]
        corridor = (y == 0) & (x >= 0) & (x <= junction)
        free = corridor | ((y.abs() == 1) & (x == junction))
        x, y = torch.where(free, x, own["_x"]), torch.where(free, y, own["_y"])
        done = torch.full_like(self.terminated, time >= self.horizon)
        success = done & (y == own["_goal"])
        # not `where` of two Python numbers, which would be float32
        late = (x < time - distance).to(torch.float64) * (-1.0 / length)
        rewards = torch.where(done, success.to(torch.float64), late)
        told_now = (x == 0) & ~own["_told"]
        at_junction = x == junction
        second = torch.where(at_junction, y, torch.where(told_now, own["_goal"], 0))
        own |= {"_x": x, "_y": y, "_told": own["_told"] | told_now}
        observations = torch.stack([at_junction, second], 1).to(torch.float64)
        return observations, rewards, done, {"success": success}


class DeviceFork(Twin):
    """See `ablate.envs.forkcommit`."""

    env: ForkCommit

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Told]:
        own, delay, time = self.own, self.env.delay, self.now + 1
        if self.now >= delay:
            speed = actions[:, 0]
            side = torch.where(speed == 0.0, own["_side"], speed.sign())
            own |= {
                "_across": (own["_across"] + SPEED * speed).clamp(-1.0, 1.0),
                "_switches": own["_switches"] + (side * own["_side"] < 0),
                "_side": side,
            }
        across, route = own["_across"], own["_route"]
        reached = across.abs() >= 1.0
        success = reached & (across.sign() == route)
        late = ~reached & (time >= self.horizon)
        rewards = success.to(torch.float64) - late.to(torch.float64)
        shown = [
            torch.full_like(across, min(time, delay) / delay),
            torch.full_like(across, float(time >= delay)),
            across,
            torch.zeros_like(across),
        ]
        told = {"success": success, "reached": reached, "switches": own["_switches"]}
        return torch.stack(shown, 1), rewards, reached | late, told


class DeviceTabular(Twin):
    """See `ablate.envs.tabular`."""

    def __init__(self, env: Tabular, device: torch.device) -> None:
        super().__init__(env, device)
        process = env.process
        self.following, self.paid = self.laid(env._next), self.laid(process.rewards)
        self.terminal, self.features = self.laid(process.terminal), self.laid(process.features)

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Told]:
        before, chosen = self.own["_state"], actions.argmax(1)
        luck = self.own["_luck"][:, self.now + 1, None]  # (B, 1)
        after = (luck >= self.following[before, chosen]).sum(1)
        self.own["_state"] = after
        rewards = self.paid[before, chosen, after]
        return self.features[after], rewards, self.terminal[after], {}


TWINS: dict[type[SimulatedEnv], type[Twin]] = {
    LinearQuadratic: DeviceLQ,
    TMaze: DeviceTMaze,
    ForkCommit: DeviceFork,
    Tabular: DeviceTabular,
}


def _in_order(terms: Tensor) -> Tensor:
    """Sums (...,) over the last axis, first to last."""
    total = terms[..., 0]
    for place in range(1, terms.shape[-1]):
        total = total + terms[..., place]
    return total
