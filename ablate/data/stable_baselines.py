"""A user's own stable-baselines3 policy as a behaviour policy: `data collect --policy sb3:FILE.zip`.

Such a file holds pickled Python beside its weights. Nothing of it is unpickled: the weights are read by torch's
weights-only loader, the architecture from their names and shapes and from the part of the file that is JSON. So neither
stable-baselines3 nor the gym of the day is needed, and nothing in a file is run. A policy that is code itself (a
network for images, a class of the user's own) is left to `ablate.data.trusted`, behind `--trust-code`.

The networks are those of stable-baselines3 2.9 and sb3-contrib (`common/policies.py`, `sac`, `td3`, `dqn`, `tqc`,
`qrdqn`); the noise of generalised state-dependent exploration (Raffin et al. 2021) is drawn anew at every step.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from ablate.data.behaviour import Acted, Behaviour, censored_logp
from ablate.errors import UserError

# Where a policy's class lives -> the activation between its layers where its arguments name none.
MODULES = {
    "stable_baselines3.common.policies": "Tanh",  # PPO, A2C, TRPO
    "stable_baselines3.sac.policies": "ReLU",
    "stable_baselines3.td3.policies": "ReLU",  # TD3, DDPG
    "stable_baselines3.dqn.policies": "ReLU",
    "sb3_contrib.tqc.policies": "ReLU",
    "sb3_contrib.qrdqn.policies": "ReLU",
}
ACTIVATIONS = ("Tanh", "ReLU", "ELU", "LeakyReLU", "SiLU", "GELU", "Sigmoid", "Softplus", "Mish")
LARGEST = 1 << 28  # bytes of weights
LARGEST_TEXT = 1 << 26  # bytes of JSON, or of a normaliser
LOG_STD = (-20.0, 2.0)  # bounds of SAC's logarithm of the standard deviation
TRUST = (
    "--trust-code lets stable-baselines3 unpickle it, which runs whatever code the file holds, with your"
    " rights, on this machine: only for a file whose maker you trust."
)


class Collector(Behaviour):
    """A policy that acts in an environment of actions `space`, seeing its flat observations.

    normaliser: the VecNormalize file of its training environment, where it had one.
    """

    def __init__(self, space: Any, normaliser: Path | None) -> None:
        self.space = space
        self._moments = None if normaliser is None else read_moments(normaliser)

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        wanted, found = self.observation_dim, observation.shape[1]
        if found != wanted:
            raise UserError(
                f"--policy: it reads observations of {wanted} numbers, the environment gives {found}; collect in"
                " the environment it was trained in."
            )
        if self._moments is not None and len(self._moments.mean) != found:
            raise UserError(
                f"--normaliser: it is for observations of {len(self._moments.mean)} numbers, the environment"
                f" gives {found}."
            )
        self._rng = rng

    @property
    def observation_dim(self) -> int:
        """Numbers in an observation that the policy reads."""
        raise NotImplementedError

    def seen(self, observation: np.ndarray) -> np.ndarray:
        """Observations (B, N) as they were in training."""
        return observation if self._moments is None else self._moments.normalise(observation)

    def scaled(self, actions: np.ndarray) -> np.ndarray:
        """Actions (B, ...) of the environment's own bounds as (B, M) in [-1, 1], unclipped."""
        middle, half = (
            (self.space.high + self.space.low) / 2,
            (self.space.high - self.space.low) / 2,
        )
        return ((actions.reshape(-1, *middle.shape) - middle) / half).reshape(len(actions), -1)


class StableBaselines(Collector):
    """The policy in `path`, sampling as in training (or its mode), in an environment of actions `space`.

    `behaviour_logp` is known for Gaussian policies (the likelihood of the clipped action) and categorical ones.

    Raises UserError when the file isn't a saved policy of stable-baselines3, can't be read without running code
    that is in it, or is for other actions.
    """

    def __init__(
        self, path: Path, space: Any, normaliser: Path | None = None, deterministic: bool = False
    ) -> None:
        super().__init__(space, normaliser)
        self._network = read_network(path, space)
        self._deterministic = deterministic

    @property
    def observation_dim(self) -> int:
        return self._network.inputs

    def act(self, observation: np.ndarray) -> Acted:
        with torch.no_grad():
            found = self._network(torch.from_numpy(self.seen(observation)).float())
        ids = np.zeros(len(observation), dtype=np.int64)
        noise = None if self._deterministic else self._rng
        if isinstance(self.space, spaces.Box):
            return self._continuous(found, ids, noise)
        counts = choices_of(self.space)
        if not self._network.samples:
            noise = None
        groups = [chosen(logits, noise) for logits in found.mean.double().split(counts, dim=-1)]
        actions = np.concatenate([action for action, _ in groups], axis=1)
        logp = np.sum([each for _, each in groups], axis=0)
        return Acted(actions, ids, logp=None if noise is None else logp)

    def _continuous(self, found: Output, ids: np.ndarray, rng: np.random.Generator | None) -> Acted:
        mean, std = found.mean.numpy(), None if found.std is None else found.std.numpy()
        drawn = mean
        if rng is not None and std is not None:
            drawn = mean + std * rng.standard_normal(mean.shape).astype(np.float32)
        if self._network.squashed:
            return Acted(np.tanh(drawn), ids)
        actions = np.clip(self.scaled(drawn), -1.0, 1.0).astype(np.float32)
        if rng is None or std is None:
            return Acted(actions, ids)
        middle = self.scaled(mean)
        spread = self.scaled(mean + std).astype(np.float64) - middle
        return Acted(
            actions,
            ids,
            logp=censored_logp(actions, middle, spread),
            mean=np.clip(middle, -1.0, 1.0).astype(np.float32),
        )


def choices_of(space: Any) -> list[int]:
    """How many choices there are in each group of a Discrete or MultiDiscrete space."""
    return [int(count) for count in np.ravel(getattr(space, "nvec", getattr(space, "n", 0)))]


def chosen(logits: Tensor, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """One choice a row of logits (B, C): (B, C) of +1 for the chosen and -1 else, and its log-probability (B,).

    rng: None for the largest.
    """
    log = torch.log_softmax(logits, dim=-1).numpy()
    noise = 0.0 if rng is None else rng.gumbel(size=log.shape)
    picked = (log + noise).argmax(axis=1)
    one_hot = np.where(np.arange(log.shape[1]) == picked[:, None], 1.0, -1.0).astype(np.float32)
    return one_hot, log[np.arange(len(log)), picked]


@dataclass(frozen=True)
class Output:
    """What a network says: mean (B, M) of actions before they are squashed, or logits; std (B, M) or None."""

    mean: Tensor
    std: Tensor | None = None


@dataclass(frozen=True)
class Network:
    """The acting part of a policy.

    Attributes:
        layers: (weight (out, in), bias (out,)) of each hidden layer, an activation after each. mean: the same of
            the last layer; its output is clipped to [-clip_mean, clip_mean], where there is such a bound.
        spread: of the standard deviation: None, its logarithm (M,), a linear layer of it (SAC), or, where
            `state_dependent`, the logarithm (H, M) or (H, 1) of that of the last hidden layer's weights.
        expln: whether exp is continued by 1 + log(1 + x) above 0. squashed: whether tanh follows.
        samples: whether it is a distribution. quantiles: of each action's value, averaged.
    """

    layers: list[tuple[Tensor, Tensor]]
    mean: tuple[Tensor, Tensor]
    activation: nn.Module
    spread: Tensor | tuple[Tensor, Tensor] | None = None
    state_dependent: bool = False
    expln: bool = False
    clip_mean: float | None = None
    squashed: bool = False
    samples: bool = True
    quantiles: int = 1

    @property
    def inputs(self) -> int:
        """Numbers in an observation."""
        return [*self.layers, self.mean][0][0].shape[1]

    def __call__(self, x: Tensor) -> Output:
        for weight, bias in self.layers:
            x = self.activation(nn.functional.linear(x, weight, bias))
        mean = nn.functional.linear(x, *self.mean)
        if self.clip_mean is not None:
            mean = mean.clamp(-self.clip_mean, self.clip_mean)
        if self.quantiles > 1:
            mean = mean.unflatten(-1, (self.quantiles, -1)).mean(1)
        if self.spread is None:
            return Output(mean)
        if isinstance(self.spread, tuple):
            return Output(mean, nn.functional.linear(x, *self.spread).clamp(*LOG_STD).exp())
        std = self.spread.exp()
        if self.expln:
            std = torch.where(self.spread > 0, torch.log1p(self.spread.clamp(min=0)) + 1, std)
        if self.state_dependent:
            variance = x.square() @ std.expand(x.shape[1], mean.shape[1]).square()
            return Output(mean, (variance + 1e-6).sqrt())
        return Output(mean, std.expand_as(mean))


def read_network(path: Path, space: Any) -> Network:
    """The acting network in a file of stable-baselines3, for actions of `space`; see `StableBaselines`."""
    where = f"--policy sb3:{path}"
    if not path.is_file():
        raise UserError(f"{where}: there is no such file.")
    try:
        with zipfile.ZipFile(path) as file:
            data = json.loads(_member(file, "data", LARGEST_TEXT))
            weights = _weights(_member(file, "policy.pth", LARGEST))
        if not isinstance(data, dict):
            raise ValueError("its data are no JSON object")
        made = _assemble(where, data, weights)
        outputs = _outputs(made, space)
    except UserError:
        raise
    except Exception as error:  # a foreign file may break anywhere
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where}: not a policy saved by stable-baselines3 ({reason}).") from error
    _same_actions(where, data, space, outputs)
    return made


def _member(file: zipfile.ZipFile, name: str, largest: int) -> bytes:
    size = file.getinfo(name).file_size
    if size > largest:
        raise ValueError(f"{name} has {size} bytes, at most {largest} are read")
    return file.read(name)


def _weights(content: bytes) -> dict[str, Tensor]:
    """The arrays of a `.pth` file by name, whatever their shape."""
    with zipfile.ZipFile(io.BytesIO(content)) as inner:  # its members may be compressed
        if sum(each.file_size for each in inner.infolist()) > LARGEST:
            raise ValueError(f"its weights are of more than {LARGEST} bytes")
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {str(name): each for name, each in found.items() if isinstance(each, Tensor)}


def _assemble(where: str, data: dict[str, Any], weights: dict[str, Tensor]) -> Network:
    """The network that weights of these names make. Raises ValueError for what isn't one."""
    module = _entry(data, "policy_class").get("__module__")
    if module not in MODULES or any("features_extractor." in name for name in weights):
        what = "a network of its own before its layers" if module in MODULES else f"of {module}"
        raise UserError(
            f"{where}: its policy is {what}, code that isn't read from weights; allowed: policies of vectors by"
            f" PPO, A2C, SAC, TD3, DDPG, DQN, TQC and QR-DQN. {TRUST}"
        )
    arguments = _entry(data, "policy_kwargs")
    name = str(arguments.get("activation_fn", MODULES[module])).rpartition(".")[2].rstrip("'>")
    if name not in ACTIVATIONS:
        raise UserError(
            f"{where}: its activation is {name[:60]}; allowed: {', '.join(ACTIVATIONS)}. {TRUST}"
        )
    activation = getattr(nn, name)()
    reader = _Layers(weights)
    if "action_net.weight" in weights:
        layers = reader.run("mlp_extractor.shared_net") + reader.run("mlp_extractor.policy_net")
        squashed = bool(arguments.get("squash_output", False)) and bool(data.get("use_sde"))
        spread = weights.get("log_std")
        state_dependent = spread is not None and spread.ndim == 2
        made = Network(layers, reader.one("action_net"), activation, spread, state_dependent,
                       squashed=squashed, expln=bool(arguments.get("use_expln")))  # fmt: skip
    elif "actor.log_std" in weights:
        clip = float(arguments.get("clip_mean", 2.0))
        mean = reader.one("actor.mu.0" if clip > 0 else "actor.mu")
        made = Network(reader.run("actor.latent_pi"), mean, activation, weights["actor.log_std"], True,
                       squashed=True, clip_mean=clip if clip > 0 else None,
                       expln=bool(arguments.get("use_expln")))  # fmt: skip
    elif "actor.log_std.weight" in weights:
        made = Network(reader.run("actor.latent_pi"), reader.one("actor.mu"), activation,
                       reader.one("actor.log_std"), squashed=True)  # fmt: skip
    elif "actor.mu.0.weight" in weights:
        *layers, last = reader.run("actor.mu")
        made = Network(layers, last, activation, squashed=True, samples=False)
    else:
        kind = "q_net.q_net" if "q_net.q_net.0.weight" in weights else "quantile_net.quantile_net"
        quantiles = int(arguments.get("n_quantiles", 200)) if kind.startswith("quantile") else 1
        *layers, last = reader.run(kind)
        made = Network(layers, last, activation, samples=False, quantiles=quantiles)
    reader.check(made)
    return made


def _entry(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the JSON says of an object; of a pickled one, the texts and numbers beside the pickle."""
    found = data.get(name)
    return found if isinstance(found, dict) else {}


class _Layers:
    """Takes layers from named arrays."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights = weights

    def one(self, name: str) -> tuple[Tensor, Tensor]:
        """The linear layer `name`. Raises KeyError where it isn't there."""
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def run(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """The linear layers `name.0`, `name.2`, ... of a sequence; [] when there is none."""
        pattern = re.compile(re.escape(name) + r"\.(\d{1,4})\.weight")
        numbers = [int(found[1]) for key in self._weights if (found := pattern.fullmatch(key))]
        if sorted(numbers) != list(range(0, 2 * len(numbers), 2)):
            raise ValueError(f"{name} isn't made of linear layers and activations alone")
        return [self.one(f"{name}.{number}") for number in sorted(numbers)]

    def check(self, made: Network) -> None:
        """Raises ValueError unless the arrays are finite numbers, and every layer reads what the one before gives."""
        spread = made.spread
        pairs = [*made.layers, made.mean, *([spread] if isinstance(spread, tuple) else [])]
        arrays = [each for pair in pairs for each in pair]
        arrays += [spread] if isinstance(spread, Tensor) else []
        for each in arrays:
            if each.dtype not in (torch.float32, torch.float64) or each.layout != torch.strided:
                raise ValueError(f"its weights are {each.dtype}, not 32-bit numbers")
            if each.numel() > LARGEST or not torch.isfinite(each).all():
                raise ValueError("its weights aren't finite numbers")
        width = made.inputs
        for weight, bias in [*made.layers, made.mean]:
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                raise ValueError(
                    f"a layer of shape {tuple(weight.shape)} can't read {width} numbers"
                )
            last, width = width, weight.shape[0]
        allowed: list[tuple[tuple[int, ...], ...]] = [((width,),)]
        if isinstance(spread, tuple):
            allowed, shapes = (
                [((width, last), (width,))],
                tuple(tuple(each.shape) for each in spread),
            )
        else:
            if made.state_dependent:
                allowed = [((last, width),), ((last, 1),)]
            shapes = () if spread is None else (tuple(spread.shape),)
        if shapes and shapes not in allowed:
            raise ValueError(f"its deviations have the shape {shapes[0]}")


def _outputs(made: Network, space: Any) -> int:
    """Numbers that it gives. Raises ValueError when its quantiles don't divide them."""
    outputs, left = divmod(made.mean[0].shape[0], made.quantiles)
    if left or made.quantiles < 1:
        raise ValueError(f"{made.mean[0].shape[0]} outputs are no {made.quantiles} quantiles each")
    return outputs


def _same_actions(where: str, data: dict[str, Any], space: Any, outputs: int) -> None:
    """Raises UserError unless the policy acts in the environment's own space of actions."""
    said = _entry(data, "action_space")
    kind = str(said.get(":type:", "")).rpartition(".")[2].rstrip("'>")
    width = (
        space.shape and int(np.prod(space.shape))
        if isinstance(space, spaces.Box)
        else sum(choices_of(space))
    )
    found = f"{kind or 'actions'} of {outputs} numbers"
    same = outputs == width and kind in ("", type(space).__name__)
    if same and isinstance(space, spaces.Box):
        for name in ("low", "high"):
            bounds = _numbers(said.get(name))
            if bounds is not None and len(bounds) == width:
                same &= bool(np.allclose(bounds, getattr(space, name).ravel(), 1e-4, 1e-6))
                found += f", {name} {' '.join(f'{each:.4g}' for each in bounds[:8])}"
    if not same:
        shown = " ".join(str(space).split())[:160]
        raise UserError(
            f"{where}: it gives {found}; the environment takes {shown}. Collect in the environment it was trained in."
        )


def _numbers(text: Any) -> list[float] | None:
    """The numbers of an array as printed, `[-1. 1.]`; None where they can't be made out."""
    try:
        return [float(word) for word in str(text).replace("[", " ").replace("]", " ").split()]
    except ValueError:
        return None


@dataclass(frozen=True)
class Moments:
    """How VecNormalize normalises flat observations (N,): by mean and variance, then clipped."""

    mean: np.ndarray
    variance: np.ndarray
    epsilon: float
    clip: float

    def normalise(self, observation: np.ndarray) -> np.ndarray:
        """Of (B, N), float32."""
        scaled = (observation - self.mean) / np.sqrt(self.variance + self.epsilon)
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)


class _Object:
    """Stands for any object in a pickle; keeps its attributes and does nothing."""

    state: dict[str, Any]

    def __new__(cls, *_: Any) -> _Object:
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def append(self, _: Any) -> None:
        """Of lists."""

    def __setitem__(self, name: Any, value: Any) -> None:
        self.state[name] = value


class _Plain(pickle.Unpickler):
    """Rebuilds arrays of numbers, and the names and attributes of objects. Nothing is imported, nothing called."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy":
            if name in ("_reconstruct", "scalar", "dtype"):
                return {"_reconstruct": _empty, "scalar": _scalar, "dtype": _dtype}[name]
            if name == "_frombuffer":
                return _from_buffer
        return {"RunningMeanStd": _Statistics, "VecNormalize": _VecNormalize}.get(name, _Object)


class _Statistics(_Object):
    pass


class _VecNormalize(_Object):
    pass


def _empty(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _dtype(code: Any, *_: Any) -> Any:
    if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", str(code)):
        raise pickle.UnpicklingError(f"an array of type {code}")
    return np.dtype(code)


def _scalar(kind: Any, content: bytes) -> Any:
    return np.frombuffer(content, kind)[0]


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, *_: Any) -> np.ndarray:
    return np.frombuffer(content, kind).reshape(shape, order=order)


def read_moments(path: Path) -> Moments:
    """The moments of observations in a VecNormalize file. Raises UserError for a file that isn't one.

    Of a dictionary of observations, those of all its keys in their order.
    """
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise ValueError("it is too large")
        with path.open("rb") as file:
            found = _unpickled(file)
        if not isinstance(found, _VecNormalize):
            raise ValueError("it holds another object")
        state = found.state
        statistics = state["obs_rms"] if state.get("norm_obs", True) else None
        if isinstance(statistics, dict):
            if set(state.get("norm_obs_keys") or statistics) != set(statistics):
                raise ValueError("it normalises some of the observations only")
            parts = [statistics[name] for name in sorted(statistics)]
        else:
            parts = [statistics]
        if not all(isinstance(each, _Statistics) for each in parts):
            raise ValueError("it doesn't normalise observations")
        mean, variance = (
            np.concatenate([np.ravel(each.state[name]).astype(np.float64) for each in parts])
            for name in ("mean", "var")
        )
        made = Moments(mean, variance, float(state["epsilon"]), float(state["clip_obs"]))
        if mean.shape != variance.shape or not (
            np.isfinite([*mean, *variance, made.epsilon]).all()
            and (variance + made.epsilon > 0).all()
            and made.clip > 0
        ):
            raise ValueError("its moments aren't numbers that divide")
    except Exception as error:  # a foreign file may break anywhere
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UserError(
            f"--normaliser {path}: not a VecNormalize file of stable-baselines3 ({reason})."
        ) from error
    return made


def _unpickled(file: IO[bytes]) -> Any:
    return _Plain(file).load()
