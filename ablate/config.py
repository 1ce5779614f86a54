"""What a cell's configuration holds: plain JSON, every key with its meaning, unit and default.

    data, mixer, context, condition, history, head      the factors that every trial has
    reading                                             how a file of the user's is read (`ablate.data.reading`)
    algorithm, layout, input                            factors that only some studies vary
    preset                                              the preset that it was made from: a label
    timesteps                                           K, where the context is given in tokens
    settings                                            the algorithm's own hyper-parameters
    model, train                                        the sections below
    measure                                             options of each measurement, by its name

A study file and a preset say the same things with the same names. What was added after results
existed keeps its default out of a trial's identity (`settled`): a trial that was computed before a
setting existed did what the default does.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ablate import registry, yaml_text
from ablate.errors import QUOTED, UserError, one_line, quoted, unknown
from ablate.registry import Section, checked, later

WIDEST = 1 << 16  # of a model
STANDARD = "standard"  # the profile that is the study's own
Config = dict[str, Any]
FACTORS = ("mixer", "context", "condition", "history", "head")
OPTIONAL = {"algorithm": "bc", "layout": "step", "input": "continuous", "preset": ""}
TOKENS = re.compile(r"([1-9]\d{0,6}) tokens")  # a context by its tokens, as in "512 tokens"
TIMESTEPS = 100_000  # of a context


def _kept(default: Any, **limits: Any) -> Any:
    """A field that says what is kept of a fit or asked of it; it changes no training and is never hashed."""
    return Field(default=default, json_schema_extra={"kept": True}, **limits)


class ModelSection(Section):
    """Size and shape of a model. The width is solved for so that the parameters match, or given.

    parameters: how many the model has, all weights counted. tolerance: largest relative mismatch of that count. layers:
    of the mixer. dropout: share of the features that training leaves out. width: of the features; given, it is not
    solved for. heads: of attention. activation: of attention's feed-forward part. positions: how attention knows the
    order of tokens. window: timesteps that sliding-window attention sees, 0 for all; of convformer, timesteps that its
    filters span, 0 for 6 tokens. timesteps: rows of a learned table of absolute timesteps, 0 for no table.
    timestep_std: standard deviation of that table's initial entries; null for 1, PyTorch's own, as released with the
    Decision Transformer. token_norm: a LayerNorm over the embedded tokens. embedding_dropout: dropout of the embedded
    tokens; null for that of `dropout`. auxiliary: the Decision Transformer's state and return heads and its word
    embedding, none of which is trained. initialisation: of the mixer's weights.
    """

    parameters: int = Field(default=16_000, gt=0)
    tolerance: float = Field(default=0.05, gt=0, lt=1)
    layers: int = Field(default=2, ge=1, le=128)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    width: int | None = later(None, gt=0, le=WIDEST)
    heads: int = later(1, ge=1, le=1024)
    activation: Literal["gelu", "relu"] = later("gelu")
    positions: Literal["learned", "rotary", "none"] = later("learned")
    window: int = later(0, ge=0)
    timesteps: int = later(0, ge=0)
    timestep_std: float | None = later(None, gt=0)
    token_norm: bool = later(False)
    embedding_dropout: float | None = later(None, ge=0, lt=1)
    auxiliary: bool = later(False)
    initialisation: Literal["torch", "gpt2", "mingpt"] = later("torch")


class Converged(Section):
    """When a fit has converged; a criterion that isn't given isn't asked for.

    loss_fall: largest fall of the held-out loss over the last third of training, as a share of the whole fall
        from the untrained model's. excess_error: largest held-out action error above the exact Bayes posterior's
        with the same window, as a share of the action's variance; where the data's law is known and the model is told
        the time alone and sees the whole past, as the posterior.
    """

    loss_fall: float | None = Field(default=None, gt=0, lt=1)
    excess_error: float | None = Field(default=None, gt=0)

    @field_validator("loss_fall", mode="before")
    @classmethod
    def _percent(cls, value: Any) -> Any:
        if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", value.strip())):
            return float(found[1]) / 100.0
        return value

    def met(self, loss_fall: float, excess_error: float = math.nan) -> float:
        """1 where a fit meets every criterion that is given, 0 where it fails one, NaN where none is or can be told."""
        asked = ((self.loss_fall, loss_fall), (self.excess_error, excess_error))
        told = [
            found <= limit for limit, found in asked if limit is not None and not math.isnan(found)
        ]
        return float(all(told)) if told else math.nan


Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainSection(Section):
    """Training, equal in every cell.

    updates: of the weights. targets_per_update: supervised actions in each, whatever the context. learning_rate: at
    its highest. schedule: of the learning rate after the warm-up. warmup: updates in which it rises from zero.
    weight_decay: decoupled from the gradient. clip: largest norm of the gradient; null for none. loss: over the
    window's last action, or over the action at every position. least_visible: with the loss `all`, the fewest
    timesteps that a position sees to count, unless its episode has no more so far. balanced: every timestep counts
    alike, however many windows hold it. precision: of forward and backward. keep: share of the training data, the best
    trajectories first. keep_by: of what that is the share: of the timesteps (Chen et al. 2021) or of the trajectories
    (CORL). windows: whether a window is drawn by the timestep at which it ends or, as released with the Decision
    Transformer, starts. return_scale: what returns are divided by; null for the spread of the data's returns-to-go.
    betas: of Adam. optimiser: with decoupled weight decay, or without. points: of the learning curve. split: whose
    episodes are learned from and held out: the data set's, or those of its training part alone, so that settings are
    chosen on episodes that no result is reported on. checkpoints: updates at which the model is kept and measured,
    besides the last; they change no training, so a fit is the same whichever are asked for. converged: what has to
    hold of a fit for a verdict about it.
    """

    updates: int = Field(default=800, gt=0)
    targets_per_update: int = Field(default=128, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0, le=100)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0, le=100)
    clip: float | None = Field(default=1.0, gt=0)
    loss: Literal["last", "all"] = "last"
    least_visible: int = later(1, ge=1)
    balanced: bool = later(False)
    precision: Literal["float32", "bfloat16"] = "float32"
    keep: float = later(1.0, gt=0, le=1)
    keep_by: Literal["timesteps", "episodes"] = later("timesteps")
    windows: Literal["end", "start"] = later("end")
    return_scale: float | None = later(None, gt=0)
    betas: tuple[Beta, Beta] = later((0.9, 0.999))
    optimiser: Literal["adamw", "adam"] = later("adamw")
    points: int = Field(default=8, gt=0, le=10_000)
    split: Literal["reported", "tuning"] = later("reported")
    checkpoints: tuple[int, ...] = _kept((), max_length=1000)
    converged: Converged | None = _kept(None)

    @field_validator("checkpoints")
    @classmethod
    def _increasing(cls, found: tuple[int, ...]) -> tuple[int, ...]:
        if any(update < 1 for update in found) or list(found) != sorted(set(found)):
            raise ValueError("expected numbers of updates, 1 or more, that increase")
        return found

    @model_validator(mode="after")
    def _within(self) -> TrainSection:
        if self.checkpoints and self.checkpoints[-1] > self.updates:
            raise ValueError(
                f"checkpoints: found {self.checkpoints[-1]}, after the last of {self.updates} updates"
            )
        return self


SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "train": TrainSection,
}
MEASURED: dict[str, dict[str, Any]] = {
    "rollout": {},
    "held-out": {},
}  # what is measured where nothing else is said


def complete(config: Mapping[str, Any], where: str = "configuration") -> dict[str, Any]:
    """The configuration with every default filled in, checked.

    Raises UserError naming what is unknown, missing or out of range.
    """
    known = (
        *("data", "reading", *FACTORS, *OPTIONAL, "timesteps", "settings"),
        *(*SECTIONS, "measure"),
    )
    for name in config:
        if name not in known:
            raise unknown(f"{where}: the part", name, known)
    for name in ("data", *FACTORS):
        if name not in config:
            raise UserError(f"{where}: '{name}' is missing.")
    made: dict[str, Any] = {name: config[name] for name in ("data", *FACTORS)}
    made |= {name: config.get(name, default) for name, default in OPTIONAL.items()}
    for name in ("data", *FACTORS, *OPTIONAL):
        if name != "context" and not isinstance(made[name], str):
            raise UserError(f"{where}: {name}: found {quoted(made[name])}; allowed: one name.")
    if (problem := no_context(made["context"])) is not None:
        raise UserError(f"{where}: {problem}")
    for name in ("condition", "history", "input"):
        made[name] = registry.canonical(name, made[name], f"{where}: the {name}")
    for name in ("settings", *SECTIONS, "measure", "reading"):
        if not isinstance(config.get(name) or {}, Mapping):
            raise UserError(
                f"{where}: {name}: found {quoted(config[name])}; allowed: keys with values."
            )
    made["reading"] = dict(config.get("reading") or {})  # checked by the data set
    made["timesteps"] = found = config.get("timesteps", 0)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= TIMESTEPS:
        raise UserError(f"{where}: timesteps: found {quoted(found)}; allowed: 0 to {TIMESTEPS:,}.")
    made["settings"] = dict(config.get("settings") or {})
    algorithm = registry.get("algorithm", made["algorithm"], f"{where}: the algorithm")
    checked(algorithm.Settings, made["settings"], f"{where}: settings")
    for name, section in SECTIONS.items():
        made[name] = plain(section, config.get(name) or {}, f"{where}: {name}")
    made["measure"] = {}
    for name, options in (config.get("measure") or MEASURED).items():
        known = registry.get("measurement", name, f"{where}: the measurement").Options
        made["measure"][name] = plain(known, options or {}, f"{where}: measure.{name}")
    return made


def assignment(text: str) -> tuple[str, list[str], Any]:
    """What `--set KEY=VALUE` says: how a refusal begins, the parts of the dotted key, and the value.

    Raises UserError for another form, or a value that YAML doesn't have.
    """
    where = f"--set {one_line(text, QUOTED)}"
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise UserError(f"{where}: expected KEY=VALUE, e.g. train.updates=1000.")
    try:
        return where, names, yaml_text.load(value)
    except yaml_text.Unreadable as error:
        raise UserError(f"{where}: {quoted(value)} is not a YAML value: {error}.") from None


def no_context(found: Any) -> str | None:
    """Why a value is no context; None where it is one."""
    if isinstance(found, str) and TOKENS.fullmatch(found):
        return None
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= TIMESTEPS:
        return None
    return (
        f"the context {quoted(found)} is no whole number of timesteps from 1 to {TIMESTEPS:,}, nor of tokens "
        "as in '512 tokens'."
    )


def plain(section: type[Section], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The section with its defaults, as plain JSON. Raises UserError as `checked`."""
    return checked(section, values, where).model_dump(mode="json")


def fit_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration the training depends on: all but what is measured afterwards."""
    return {name: value for name, value in config.items() if name != "measure"}


def budgets(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The updates at which the model is kept and measured; the last is the end of training."""
    train = config["train"]
    return tuple(sorted({*train.get("checkpoints", ()), train["updates"]}))


def is_factor(name: str) -> bool:
    """Whether a column of a tidy table is a factor: a named part, or a path into a section.

    Responses are named after their measurement (`rollout.score`), and no measurement is named as a section.
    """
    return name in ("data", *FACTORS, *OPTIONAL) or name.partition(".")[0] in (
        *SECTIONS,
        "settings",
        "measure",
    )


def timesteps(config: Mapping[str, Any]) -> int:
    """K, the timesteps that a model of this configuration sees."""
    return int(config.get("timesteps") or config["context"])


def settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fit's configuration as it is hashed: what came later and is at its default is left out."""
    made = fit_part(config)
    made.pop("preset", None)  # says where the rest comes from, and changes nothing
    for name, default in OPTIONAL.items():
        if made.get(name) == default:
            del made[name]
    if "reading" in made:  # where a file lies changes nothing
        made["reading"] = {n: v for n, v in made["reading"].items() if n != "folder"}
    for name in ("settings", "timesteps", "reading"):
        if not made.get(name, True):
            del made[name]
    for name, section in SECTIONS.items():
        if name in made:
            made[name] = settled_section(section, made[name])
    return made


def settled_section(section: type[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """One section without what came later and is at its default."""
    kept, later = _settling(section)
    return {
        name: value
        for name, value in values.items()
        if name not in kept and not (name in later and value == later[name])
    }


@functools.cache
def _settling(section: type[Section]) -> tuple[frozenset[str], dict[str, Any]]:
    """The fields of a section that are never hashed, and those that are not at their default, with that."""
    said = {
        name: field.json_schema_extra
        for name, field in section.model_fields.items()
        if isinstance(field.json_schema_extra, dict)
    }
    kept = frozenset(name for name, extra in said.items() if extra.get("kept"))
    # Without what has no default: options of a measurement may be such.
    defaults = section.model_construct().model_dump(mode="json")
    return kept, {name: defaults[name] for name, extra in said.items() if extra.get("later")}
