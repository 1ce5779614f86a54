"""One update, or one plan, of a public repository in the user's own checkout, at hopper's sizes and its own settings.

The repository's model does the work, and its own training step or search where that can be called; its windows are
handed to it ready made. What it imports beside torch and numpy is replaced by thin stand-ins: of transformers, the
parts of GPT-2 that the model is built from, as they compute there; of everything else, things that can be imported and
do nothing.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.bench.transformer import ACTIONS, LONGEST, OBSERVATIONS
from ablate.errors import UserError, one_line
from ablate.plan.options import PlanOptions

Update = Callable[[], object]
Planner = Callable[[PlanOptions], Callable[[], object]]  # to one search, in float32
Known = TypeVar("Known")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Peer:
    """name: of the repository. preset: ours to which it compares. update: one of its training steps, in float32."""

    name: str
    preset: str
    update: Update


def peer(folder: Path) -> Peer:
    """What lies in the folder. Raises UserError where it is no checkout that is known, or can't be run."""

    def made(known: tuple[str, str, Callable[[Path], Update]]) -> Peer:
        name, preset, make = known
        update = make(folder)
        update()
        return Peer(name, preset, update)

    return _found(folder, KNOWN, made)


def planner(folder: Path) -> tuple[str, Planner]:
    """The name of the repository in the folder, and its search. Raises UserError as `peer` does."""

    def made(known: tuple[str, Callable[[Path], Planner]]) -> tuple[str, Planner]:
        name, make = known
        plan = make(folder)
        plan(PlanOptions(horizon=1, beam=1))()
        return name, plan

    return _found(folder, PLANNERS, made)


def _found(folder: Path, known: Mapping[str, Known], make: Callable[[Known], Made]) -> Made:
    """What is made of the first of the known files that the folder has."""
    where = f"bench --peer {folder}"
    for path, each in known.items():
        if (folder / path).is_file():
            try:
                with torch.random.fork_rng(devices=[]):
                    return make(each)
            except Exception as error:  # whatever the checkout's own code raises
                said = one_line(f"{type(error).__name__}: {error}", 200)
                raise UserError(f"{where}: {path} cannot be run ({said}).") from error
    raise UserError(
        f"{where}: found no checkout that is known; allowed: a folder that holds {' or '.join(known)}."
    )


def decision_transformer(folder: Path) -> Update:
    """The settings of gym/experiment.py; its `SequenceTrainer.train_step`."""
    with importing_from(folder / "gym"):
        model_of = importlib.import_module("decision_transformer.models.decision_transformer")
        trainer = importlib.import_module("decision_transformer.training.seq_trainer")
    model = model_of.DecisionTransformer(
        state_dim=OBSERVATIONS,
        act_dim=ACTIONS,
        max_length=20,
        max_ep_len=LONGEST,
        hidden_size=128,
        n_layer=3,
        n_head=1,
        n_inner=4 * 128,
        activation_function="relu",
        n_positions=1024,
        resid_pdrop=0.1,
        attn_pdrop=0.1,
    )
    states, actions, returns, time, mask = windows(64, 20)
    ends = torch.cat([returns, returns[:, -1:]], dim=1)
    batch = states, actions, returns, torch.zeros(64, 20), ends, time, mask
    made = trainer.SequenceTrainer(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4),
        batch_size=64,
        get_batch=lambda size: batch,
        loss_fn=lambda s_hat, a_hat, r_hat, s, a, r: torch.mean((a_hat - a) ** 2),
    )
    model.train()
    step: Update = made.train_step
    return step


def corl(folder: Path) -> Update:
    """The settings of `TrainConfig`; the lines of the loop in `train`, which cannot be called alone."""
    path = next(folder / each for each in CORL if (folder / each).is_file())
    spec = importlib.util.spec_from_file_location("ablate_peer_dt", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    try:
        with stand_ins():
            spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    config = module.TrainConfig()
    model = module.DecisionTransformer(
        state_dim=OBSERVATIONS,
        action_dim=ACTIONS,
        embedding_dim=config.embedding_dim,
        seq_len=config.seq_len,
        episode_len=config.episode_len,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        attention_dropout=config.attention_dropout,
        residual_dropout=config.residual_dropout,
        embedding_dropout=config.embedding_dropout,
        max_action=config.max_action,
    )
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
    )
    states, actions, returns, time, mask = windows(config.batch_size, config.seq_len)
    returns, mask = returns.squeeze(-1), mask.float()

    def update() -> None:
        found = model(
            states=states,
            actions=actions,
            returns_to_go=returns,
            time_steps=time,
            padding_mask=~mask.to(torch.bool),
        )
        loss = F.mse_loss(found, actions.detach(), reduction="none")
        loss = (loss * mask.unsqueeze(-1)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimiser.step()
        loss.item()

    return update


def trajectory_transformer(folder: Path) -> Update:
    """The settings of config/offline.py and scripts/train.py; the lines of `Trainer.train`'s loop."""
    with importing_from(folder):
        model_of = importlib.import_module("trajectory.models.transformers")
    timesteps, batch = 10, 256
    model = _gpt(model_of, timesteps)
    optimiser = model.configure_optimizers(
        SimpleNamespace(weight_decay=0.1, learning_rate=6e-4, betas=(0.9, 0.95))
    )
    length = timesteps * SLOTS - 1
    tokens = torch.randint(0, BINS, (batch, length + 1))
    mask = torch.ones(batch, length)
    model.train(True)

    def update() -> None:
        _, loss = model(tokens[:, :-1], tokens[:, 1:].contiguous(), mask)
        loss.item()
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return update


def trajectory_planner(folder: Path) -> Planner:
    """`beam_plan` after a full context, as scripts/plan.py calls it; with mode full it crops nothing."""
    with importing_from(folder):
        model_of = importlib.import_module("trajectory.models.transformers")
        core = importlib.import_module("trajectory.search.core")
        bins_of = importlib.import_module("trajectory.utils.discretization")
        arrays: Any = importlib.import_module("trajectory.utils.arrays")
    arrays.DEVICE = "cpu"  # which its own setting of a device leaves as it was
    rows = np.random.default_rng(0).normal(size=(10_000, SLOTS)).astype(np.float32)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it tests of itself
        bins = bins_of.QuantileDiscretizer(rows, BINS)

    def plan(options: PlanOptions) -> Callable[[], object]:
        whole = options.mode == "full"
        model = _gpt(model_of, options.executed + options.horizon if whole else 10)
        told = torch.randint(0, BINS, (1, options.executed * SLOTS + OBSERVATIONS))
        return lambda: core.beam_plan(
            model, lambda probs: bins.value_fn(probs, options.percentile), told,
            options.horizon, options.beam, options.n_expand, OBSERVATIONS, ACTIONS,
            options.discount, None if whole else options.max_context_transitions, verbose=False,
            k_obs=options.k_obs, k_act=options.k_act, k_rew=options.k_rew,
            cdf_obs=options.cdf_obs, cdf_act=options.cdf_act, cdf_rew=options.cdf_rew,
        )  # fmt: skip

    return plan


def _gpt(module: Any, timesteps: int) -> Any:
    """The released model, for windows of so many timesteps."""
    return module.GPT(
        SimpleNamespace(
            vocab_size=BINS, block_size=timesteps * SLOTS - 1, n_layer=4, n_head=4, n_embd=4 * 32,
            observation_dim=OBSERVATIONS, action_dim=ACTIONS, transition_dim=SLOTS,
            action_weight=5, reward_weight=1, value_weight=1,
            embd_pdrop=0.1, resid_pdrop=0.1, attn_pdrop=0.1,
        )
    )  # fmt: skip


BINS, SLOTS = 100, OBSERVATIONS + ACTIONS + 2  # of the Trajectory Transformer
CORL = ("algorithms/offline/dt.py", "algorithms/dt.py")
# A file that only this repository has: its name, our preset, how an update is made.
KNOWN: dict[str, tuple[str, str, Callable[[Path], Update]]] = {
    "gym/decision_transformer/models/decision_transformer.py": (
        "Decision Transformer", "dt", decision_transformer,
    ),
    **dict.fromkeys(CORL, ("CORL's Decision Transformer", "dt", corl)),
    "trajectory/models/transformers.py": (
        "Trajectory Transformer", "tt", trajectory_transformer,
    ),
}  # fmt: skip
PLANNERS: dict[str, tuple[str, Callable[[Path], Planner]]] = {
    "trajectory/search/core.py": ("Trajectory Transformer", trajectory_planner),
}


def windows(batch: int, length: int) -> tuple[Tensor, ...]:
    """States (B, K, N), actions (B, K, M), returns-to-go (B, K, 1), timesteps (B, K) and a mask of ones (B, K)."""
    time = torch.randint(0, LONGEST - length, (batch, 1)) + torch.arange(length)
    states, actions = torch.randn(batch, length, OBSERVATIONS), torch.randn(batch, length, ACTIONS)
    return (
        states,
        actions.tanh(),
        torch.rand(batch, length, 1),
        time,
        torch.ones(batch, length).long(),
    )


# --- what is imported ---


class Nothing:
    """Stands for a module, a class, a decorator or a value that is imported and not needed here."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **options: Any) -> Any:
        decorates = len(args) == 1 and not options and callable(args[0])
        return args[0] if decorates else self

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return ()


class Conv1D(nn.Module):
    """GPT-2's linear layer, whose weight is (inputs, outputs)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(inputs, outputs).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        flat = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], self.outputs)


class PreTrainedModel(nn.Module):
    """What a model of transformers takes from its base for an update."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def init_weights(self) -> None:
        """As the model says."""
        start: Any = self._init_weights
        self.apply(start)

    def get_head_mask(self, mask: Any, layers: int) -> list[None]:
        """No head is masked."""
        return [None] * layers

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype


def gpt2_config(**given: Any) -> SimpleNamespace:
    """GPT2Config's defaults, so far as they are read."""
    read: dict[str, Any] = {
        "n_positions": 1024,
        "n_ctx": 1024,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
    }
    read |= {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5}
    read |= {"initializer_range": 0.02, "use_cache": True, "use_return_dict": True}
    read |= dict.fromkeys(
        ("output_attentions", "output_hidden_states", "add_cross_attention"), False
    )
    return SimpleNamespace(**read | given)


TRANSFORMERS: dict[str, dict[str, Any]] = {
    "": {"GPT2Config": gpt2_config},
    ".activations": {"ACT2FN": {"relu": F.relu, "gelu": F.gelu}},
    ".file_utils": {},
    ".modeling_outputs": {"BaseModelOutputWithPastAndCrossAttentions": dict},
    ".modeling_utils": {"Conv1D": Conv1D, "PreTrainedModel": PreTrainedModel},
    ".utils": {},
    ".utils.model_parallel_utils": {},
    ".models.gpt2.configuration_gpt2": {"GPT2Config": gpt2_config},
}
NEEDLESS = (
    "d4rl", "git", "gym", "mujoco_py", "pyrallis", "skvideo", "skvideo.io", "tap", "tqdm",
    "tqdm.auto", "wandb",
)  # fmt: skip


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """In place of the packages, installed or not."""
    made: dict[str, Any] = {
        f"transformers{n}": Nothing(**parts) for n, parts in TRANSFORMERS.items()
    }
    made |= {name: Nothing() for name in NEEDLESS}
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    older = not hasattr(collections, "Mapping")  # where Python had it until 3.10
    if older:
        collections.Mapping = Mapping  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(action="ignore"):  # the compiler's, of the code
            yield
    finally:
        if older:
            del collections.Mapping  # type: ignore[attr-defined]
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """With the folder's packages first, which are forgotten afterwards, and with the stand-ins."""
    known, inside = set(sys.modules), folder.resolve()
    sys.path.insert(0, str(inside))
    try:
        with stand_ins():
            yield
    finally:
        sys.path.remove(str(inside))
        for name in [name for name in set(sys.modules) - known if _lies_in(inside, name)]:
            del sys.modules[name]


def _lies_in(folder: Path, name: str) -> bool:
    """Whether a module was imported from there; a package without an __init__.py has folders and no file."""
    module = sys.modules[name]
    where = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(Path(path).is_relative_to(folder) for path in where if path)
