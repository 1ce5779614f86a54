"""Acting: many episodes as one batch against one after another.

Sizes of the public Decision Transformer for Gym: hopper's 11 observations and 3 actions, 20 timesteps
of context, three layers of width 128. The environment does nothing, so that the policy's own pace is
measured: fields to tensors, tokens, network, action back to the environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ablate.bench.transformer import ACTIONS, LAYERS, OBSERVATIONS, TIMESTEPS, WIDTH
from ablate.bench.update import Row, one_thread
from ablate.data.normalise import Scales
from ablate.envs.base import Step, VectorEnv
from ablate.measure.rollout import rollout
from ablate.models.agent import Agent
from ablate.models.assembly import build
from ablate.models.layouts import Layout
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack

EPISODES = 64
STEPS = 60  # timesteps of an episode, of which all but the first 20 have a full window
CHUNKS = 3

# name, mixer, layout, state, goal on the CPU and on a GPU
MODELS: tuple[tuple[str, str, str, str, float, float], ...] = (
    ("decision transformer", "attention", "modality", "re-encoded", 3.0, 30.0),
    ("gru, carried", "gru", "step", "carried", 20.0, 30.0),
    ("lstm, carried", "lstm", "step", "carried", 20.0, 30.0),
    ("ssm, carried", "ssm", "step", "carried", 20.0, 30.0),
    ("gru, carried, interleaved tokens", "gru", "modality", "carried", 20.0, 30.0),
)


class Idle(VectorEnv):
    """Episodes of `STEPS` timesteps in which nothing happens."""

    observation_dim, action_dim, horizon = OBSERVATIONS, ACTIONS, STEPS

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self._still = np.zeros((num_envs, OBSERVATIONS), dtype=np.float32)
        self._nothing = np.zeros(num_envs)
        self._never = np.zeros(num_envs, dtype=bool)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """The same observation whatever the seeds."""
        return self._still

    def step(self, actions: np.ndarray) -> Step:
        """Nothing, without reward and without end."""
        return self._still, self._nothing, self._never, self._never, {}


def acting_agent(mixer: str, layout: str, state: str, device: str = "cpu") -> Agent:
    """An untrained policy of the stated sizes that is told its return-to-go."""
    rows = Layout(
        OBSERVATIONS, ACTIONS, 0, "states+actions+returns", "return-to-go", timesteps=True
    )
    options: dict[str, Any] = {"layout": layout, "timesteps": 1000, "token_norm": True}
    if mixer == "attention":
        options |= {"positions": "none", "activation": "relu"}
    spec = ModelSpec(
        mixer, "mse", TIMESTEPS, rows.features, ACTIONS, WIDTH, LAYERS, 0.1,
        columns=tuple(rows.columns), **options,
    )  # fmt: skip
    policy = build(spec, torch.Generator().manual_seed(0)).to(device)
    scales = Scales(torch.zeros(OBSERVATIONS), torch.ones(OBSERVATIONS), 1.0, 1000.0, 1000)
    return Agent(Stack([policy]), rows, scales.to(device), TIMESTEPS, state)


def steps_per_second(agent: Agent, episodes: int, chunks: int = CHUNKS) -> float:
    """Environment steps a second with so many episodes at once; the best of `chunks` rollouts.

    CPU time on a CPU, which other programs disturb least; elapsed time on a GPU.
    """
    clock = time.process_time if agent.device.type == "cpu" else time.perf_counter
    best = 0.0
    for _ in range(chunks + 1):  # the first one warms up
        env = Idle(episodes)
        start = clock()
        rollout(
            agent, env, episodes,
            study="bench", seeds=[0], target=3600.0, policy=None, sample=False,
        )  # fmt: skip
        best = max(best, episodes * STEPS / (clock() - start))
    return best


def acting_rows(chunks: int = CHUNKS, episodes: int = EPISODES) -> list[Row]:
    """One row for each model: environment steps a second, one episode after another and at once.

    On one thread of the CPU, and on a GPU where there is one.
    """
    rows = []
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    with one_thread():
        for device in devices:
            for name, mixer, layout, state, on_cpu, on_gpu in MODELS:
                agent = acting_agent(mixer, layout, state, device)
                single = steps_per_second(agent, 1, chunks)
                batch = steps_per_second(agent, episodes, chunks)
                rows.append(
                    {
                        "model": name,
                        "device": device,
                        "one after another": single,
                        f"{episodes} at once": batch,
                        "ratio": batch / single,
                        "goal": on_cpu if device == "cpu" else on_gpu,
                        "load": os.getloadavg()[0],
                    }
                )
    return rows
