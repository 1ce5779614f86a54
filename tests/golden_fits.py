"""Small fits whose losses and final parameters `golden_fits.json` holds, bit for bit.

`python -m tests.golden_fits`, in the root of the project, trains them and writes the file anew.

What is recorded is training alone: nothing of an evaluation. Bits are a matter of the PyTorch version and of the
processor's instructions too, so these are noted; elsewhere losses are only held to a tolerance. A tensor is known by
its content, never by its name, its shape or its place among the others, so that these may change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.data import catalogue
from ablate.data.catalogue import DataSet
from ablate.learn.train import train_cohort
from ablate.study import presets
from ablate.trial import prepare

GOLDEN = Path(__file__).parent / "golden_fits.json"
STUDY = "golden-fits"  # names the random streams


@dataclass(frozen=True)
class Fit:
    """What is trained: one configuration with its seeds, as one stack or one after another."""

    config: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    stacked: bool = False
    goal: tuple[
        int, ...
    ] = ()  # coordinates of the observation that are a goal, where the data have none


@dataclass(frozen=True)
class Fitted:
    """One seed's training loss at every update, and every tensor of its model at the end."""

    losses: list[float]
    tensors: list[Tensor]


def train(fit: Fit, cache: Path) -> list[Fitted]:
    """Train; one `Fitted` a seed. The one place that knows how this code base trains."""
    # As everything that trains does: with more, sums in another order give other bits.
    torch.set_num_threads(1)
    load = catalogue.load
    with pytest.MonkeyPatch.context() as patched:
        if fit.goal:
            patched.setattr(catalogue, "load", lambda *args: _with_goal(load(*args), fit.goal))
        system: Any = prepare(fit.config, cache)
    found = []
    for seeds in [fit.seeds] if fit.stacked else [[seed] for seed in fit.seeds]:
        program = system.program([system.model(STUDY, seed) for seed in seeds])
        whole = system.config
        trained = train_cohort(
            program.stack,
            system.source(program),
            whole["train"],
            STUDY,
            seeds,
            range(1, whole["train"]["updates"] + 1),
            lambda _, loss: loss.tolist(),
            algorithm=whole["algorithm"],
            settings=whole["settings"],
        )
        assert not trained.diverged, trained.diverged
        for place, state in enumerate(program.stack.state_dicts()):
            losses = [loss[place] for _, loss in trained.points]
            found.append(Fitted(losses, list(state.values())))
    return found


def _with_goal(data: DataSet, goal: tuple[int, ...]) -> DataSet:
    """The set as one whose goals are about these coordinates."""
    return dataclasses.replace(data, spec=dataclasses.replace(data.spec, goal=goal))


UPDATES = 12
BASE: dict[str, Any] = {
    "data": "lq-mix/step",
    "mixer": "gru",
    "context": 4,
    "condition": "none",
    "history": "states+actions",
    "head": "mse",
    "algorithm": "bc",
    "layout": "step",
    "input": "continuous",
    "settings": {},
    "model": {"width": 12, "layers": 1, "dropout": 0.0},
    "train": {
        "updates": UPDATES,
        "targets_per_update": 32,
        "learning_rate": 5e-3,
        "schedule": "cosine",
        "warmup": 3,
        "weight_decay": 1e-2,
        "clip": 1.0,
        "loss": "last",
        "precision": "float32",
    },
}


def config(**changes: Any) -> dict[str, Any]:
    """The small configuration with changes; a section's are laid over it, key by key."""
    return BASE | {
        name: BASE[name] | value if isinstance(value, dict) else value
        for name, value in changes.items()
    }


def joint(**changes: Any) -> dict[str, Any]:
    """A model of whole trajectories, of timesteps that fit into a handful of tokens."""
    return config(
        **{
            "data": "forkcommit/5-v0",
            "mixer": "attention",
            "history": "states+actions+rewards",
            "algorithm": "joint",
            "layout": "dimension",
            "head": "categorical",
            "input": "discretised",
        }
        | changes
        | {
            "settings": {"bins": 8, "penalty": -1.0, "discount": 0.9} | changes.get("settings", {}),
            "model": {"width": 8, "heads": 2} | changes.get("model", {}),
            "train": {"targets_per_update": 64, "loss": "all"} | changes.get("train", {}),
        }
    )


def preset(name: str) -> dict[str, Any]:
    """A preset on a data set that has what it asks for, with its sizes and lengths cut down."""
    data = {"rvs-g": "fourrooms/held-out-v0", "tt": "forkcommit/5-v0"}.get(name, "lq-mix/episode")
    found = presets.read(name)
    settings = {"critic_width": 16, "cosine": 9}
    changes: dict[str, Any] = {
        "model": {"width": 16},
        "train": {"updates": UPDATES, "targets_per_update": 64, "warmup": 3},
        "settings": {k: v for k, v in settings.items() if k in found.get("settings", {})},
    }
    return presets.configuration(name, data, changes=changes)


MIXERS = ("attention", "bag", "conv", "convformer", "gru", "lstm", "mlp", "ssm")
HEADS = ("autoregressive", "categorical", "gaussian", "mixture", "mse", "softmax", "tanh-gaussian")
PRESETS = ("bc", "cql", "dt", "iql", "rvs-g", "rvs-r", "td3-bc", "ten-percent-bc", "tt")
CONDITIONS = {
    "time": {"history": "states"},
    "return-to-go": {"history": "states+actions+rewards"},
    "return-to-go+time": {"history": "states+actions+returns"},
    "average-return": {"history": "actions"},
    "average-return+time": {"data": "chain/gamble-episode-v0"},
    "policy-id": {"data": "lq-mix/episode"},
    "goal": {"data": "fourrooms/held-out-v0"},
    "goal+time": {"data": "fourrooms/held-out-v0", "history": "states"},
}
Q_LEARNING: dict[str, dict[str, Any]] = {
    "td3+bc": {"settings": {"critic_width": 12}},
    "iql": {"settings": {"critic_width": 12}, "head": "gaussian"},
    "cql": {"settings": {"critic_width": 12, "actions": 3}, "head": "tanh-gaussian"},
}
SEEDS = (0, 1, 2)

FITS: dict[str, Fit] = {
    **{f"mixer {name}": Fit(config(mixer=name, condition="return-to-go")) for name in MIXERS},
    **{
        f"head {name}": Fit(
            config(
                head=name,
                mixer="attention",
                data="grid/cliff-step-v0" if name == "softmax" else "lq-mix/episode",
            )
        )
        for name in HEADS
    },
    **{f"condition {name}": Fit(config(condition=name, **o)) for name, o in CONDITIONS.items()},
    **{f"preset {name}": Fit(preset(name)) for name in PRESETS},
    # algorithms, on single states and on windows
    **{
        f"{name}, context {context}": Fit(
            config(
                algorithm=name,
                data="lq-mix/episode",
                context=context,
                mixer="mlp" if context == 1 else "gru",
                **options,
            )
        )
        for name, options in Q_LEARNING.items()
        for context in (1, 4)
    },
    "joint, dimension": Fit(joint()),
    "joint, dimension, dropout": Fit(joint(model={"dropout": 0.2, "layers": 2}), (0, 1)),
    "joint, step": Fit(joint(layout="step", head="autoregressive", input="continuous")),
    "joint, modality": Fit(joint(layout="modality", head="mixture", input="continuous")),
    "joint, chunk-2": Fit(joint(layout="chunk-2", head="mse")),
    "joint, rotary": Fit(joint(head="gaussian", model={"positions": "rotary"})),
    "joint, goal": Fit(
        joint(condition="goal", settings={"discretiser": "uniform"}), goal=(2, 3)
    ),
    "joint, critic": Fit(
        joint(settings={"critic": {"updates": 2, "batch": 16, "width": 12}, "value_mask": False})
    ),
    "joint, released schedule": Fit(
        joint(settings={"cosine": 5, "clamped": False, "repeats": "kept"}, context=1)
    ),
    "joint, bfloat16": Fit(joint(train={"precision": "bfloat16"})),
    "joint, stopped": Fit(joint(settings={"sharing": "stopped"})),
    **{
        f"joint, {name}": Fit(joint(layout="modality", settings={"sharing": name}), (0, 1))
        for name in ("separate", "transplanted")
    },
    # one-step models
    **{
        f"one-step, {name}": Fit(
            config(algorithm="one-step", settings=settings, context=2, train={"loss": "all", "least_visible": 2})
        )
        for name, settings in (("ensemble", {"members": 3}), ("unrolled", {"members": 1, "unroll": 4}))
    },
    # layouts and input
    "layout modality": Fit(config(layout="modality", mixer="attention", condition="return-to-go")),
    "layout dimension": Fit(config(layout="dimension", mixer="gru")),
    "layout chunk-2": Fit(config(layout="chunk-2", mixer="conv", condition="time")),
    "layout modality, convformer": Fit(
        config(
            layout="modality",
            mixer="convformer",
            condition="return-to-go",
            history="states+actions+returns",
            model={"window": 2, "layers": 2},
        )
    ),
    "input discretised": Fit(config(input="discretised", layout="dimension", mixer="attention")),
    # contexts
    "context 1": Fit(config(context=1)),
    "context 20": Fit(config(context=20, mixer="attention")),
    "context 20, loss all": Fit(config(context=20, mixer="ssm", train={"loss": "all"})),
    "context in tokens": Fit(
        config(context="12 tokens", timesteps=6, layout="modality", mixer="attention")
    ),
    # training
    "loss all, windows start": Fit(
        config(mixer="attention", head="mixture", train={"loss": "all", "windows": "start"})
    ),
    "loss all, short episodes": Fit(
        config(data="tmaze/passive-3", mixer="lstm", train={"loss": "all"})
    ),
    "windows start": Fit(config(train={"windows": "start"})),
    "schedule constant": Fit(config(train={"schedule": "constant", "clip": None})),
    "no warm-up": Fit(config(train={"warmup": 0})),
    "adam": Fit(config(train={"optimiser": "adam", "betas": [0.8, 0.95]})),
    "best timesteps": Fit(
        config(data="chain/gamble-episode-v0", train={"keep": 0.2, "keep_by": "timesteps"})
    ),
    "best episodes": Fit(
        config(data="chain/gamble-episode-v0", train={"keep": 0.2, "keep_by": "episodes"})
    ),
    "return scale": Fit(config(condition="return-to-go", train={"return_scale": 10.0})),
    "bfloat16": Fit(config(mixer="attention", train={"precision": "bfloat16"})),
    "two blocks of targets": Fit(config(train={"updates": 68})),
    # models
    "matched": Fit(config(model={"width": None, "parameters": 2500, "tolerance": 0.1})),
    "dropout": Fit(config(mixer="attention", model={"dropout": 0.2, "layers": 2})),
    "embedding dropout": Fit(config(model={"dropout": 0.1, "embedding_dropout": 0.3})),
    "attention, rotary": Fit(
        config(mixer="attention", model={"positions": "rotary", "heads": 2, "activation": "relu"})
    ),
    "attention, sliding": Fit(
        config(mixer="attention", model={"positions": "none", "window": 2, "layers": 2})
    ),
    "table of timesteps": Fit(
        config(
            data="key-to-door/random-1k-v0",
            head="softmax",
            layout="modality",
            mixer="attention",
            condition="return-to-go",
            model={"timesteps": 50, "timestep_std": 0.02, "token_norm": True},
        )
    ),
    "as released with DT": Fit(
        config(mixer="attention", model={"auxiliary": True, "initialisation": "gpt2"})
    ),
    # data
    "short episodes": Fit(config(data="tmaze/passive-3", mixer="mlp")),
    "hidden velocity": Fit(config(data="lq-mix/step@mask-velocity", head="gaussian")),
    # several seeds
    "seeds one by one": Fit(config(), SEEDS),
    "stack": Fit(config(), SEEDS, stacked=True),
    "stack, attention": Fit(
        config(mixer="attention", head="mixture", model={"dropout": 0.2}), SEEDS, stacked=True
    ),
    "stack, discretised": Fit(
        config(
            mixer="attention", layout="modality", input="discretised", head="categorical",
            train={"loss": "all"},
        ),
        SEEDS, stacked=True,
    ),
    "stack, bfloat16": Fit(
        config(mixer="mlp", train={"precision": "bfloat16"}), SEEDS, stacked=True
    ),
    **{
        f"stack, {name}": Fit(
            config(algorithm=name, data="lq-mix/episode", context=1, mixer="mlp", **options),
            SEEDS,
            stacked=True,
        )
        for name, options in Q_LEARNING.items()
    },
}  # fmt: skip


def machine() -> dict[str, str]:
    """What bits depend on beside the code.

    arithmetic: a hash of products of matrices and of an activation. Two processors of one capability can give other
    bits, as the libraries behind these choose their kernels by themselves.
    """
    torch.set_num_threads(1)
    found = []
    for k, m, n in [(4, 32, 12), (12, 32, 36), (12, 128, 2), (32, 12, 48), (128, 16, 64)]:
        a, b = (torch.arange(3 * i * k).reshape(3, i, k).mul(0.7).sin() for i in (m, n))
        for kind in (torch.float32, torch.bfloat16):
            x, y = a.to(kind), b.to(kind)
            found += [x @ y.mT, x[0] @ y[0].T, F.linear(x, y[0], y[0, :, 0]), F.gelu(x)]
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "arithmetic": _hash(torch.cat([each.float().flatten() for each in found])),
    }


def recorded(fitted: Sequence[Fitted]) -> dict[str, list[str]]:
    """As the file holds it, a line a seed: exact losses; of each tensor its size and hash, sorted."""
    return {
        "losses": [" ".join(loss.hex() for loss in one.losses) for one in fitted],
        "tensors": [" ".join(sorted(map(_content, one.tensors))) for one in fitted],
    }


def _content(tensor: Tensor) -> str:
    """Number of entries, and a hash of their bytes."""
    return f"{tensor.numel()}:{_hash(tensor)}"


def _hash(tensor: Tensor) -> str:
    """The first 12 hex digits of the SHA-256 of the entries' bytes."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(raw.tobytes()).hexdigest()[:12]


def main() -> None:
    """Write `golden_fits.json`."""
    with tempfile.TemporaryDirectory() as cache:
        fits = {name: recorded(train(fit, Path(cache))) for name, fit in FITS.items()}
    GOLDEN.write_text(json.dumps({"machine": machine(), "fits": fits}, indent=1) + "\n")


if __name__ == "__main__":
    main()
