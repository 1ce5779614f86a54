"""The audit: what does a model's output depend on?

Every logged quantity at every lag is altered, in training shape (windows cut from stored episodes)
and in acting shape (one timestep after another). A model passes when nothing from the future, from
beyond the context, from padding, from what the history hides or from other windows, episodes and
replicas reaches its output, everything that is declared does, and every way of running it gives the
same output. It is run on synthetic episodes with fresh weights, in double precision, so that "no
influence" means none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from ablate import streams
from ablate.audit import checks
from ablate.audit.probe import Lab, Reader
from ablate.data.normalise import Scales
from ablate.errors import UserError
from ablate.measure.agent import Agent, stored
from ablate.models.layouts import Layout
from ablate.models.policy import ModelSpec, build
from ablate.models.stack import Stack
from ablate.registry import get

SHAPES = ("training", "acting")
OBSERVATIONS, ACTIONS, POLICIES, GOAL = 3, 2, 3, (0, 1)  # of the synthetic data
HORIZON = 100
SEEN, NONE, WRONG, MISSING = "●", "·", "✗", "○"


@dataclass
class Audit:
    """What a model's output depends on, and what is wrong with that.

    Attributes:
        mixer, context, history, condition, head: the audited configuration.
        lags: timesteps back from the output, negative ones in the future.
        receptive: field -> shape ("training", "acting") -> influence at each of `lags`: the largest
            change of the head's parameters relative to their size, 0.0 for none.
        declared: field -> the lags that should have an influence.
        state: what acting does when the context is full, "re-encoded" or "carried".
        allowed: shape -> field -> the lags that may have one; where empty, the declared ones.
        findings: one line for each fault; empty when the model passed.
    """

    mixer: str
    context: int
    history: str
    condition: str
    head: str
    lags: tuple[int, ...]
    receptive: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    declared: dict[str, list[int]] = field(default_factory=dict)
    state: str = "re-encoded"
    allowed: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def name(self) -> str:
        """The configuration in one line."""
        return (
            f"{self.mixer}, context {self.context}, history {self.history}, "
            f"condition {self.condition}, head {self.head}"
            + (", state carried" if self.state == "carried" else "")
        )

    def record(self) -> dict[str, Any]:
        """For `audit.json`; influence[shape][field] lists one number for each of `lags`."""
        return {
            "mixer": self.mixer,
            "context": self.context,
            "history": self.history,
            "condition": self.condition,
            "head": self.head,
            "state": self.state,
            "passed": self.passed,
            "findings": list(self.findings),
            "lags": list(self.lags),
            "declared": {name: list(lags) for name, lags in self.declared.items()},
            "influence": {
                shape: {
                    # Three digits: the last ones differ between processors.
                    name: [float(f"{value:.3g}") for value in by_shape[shape]]
                    for name, by_shape in self.receptive.items()
                }
                for shape in SHAPES
            },
        }

    def text(self) -> str:
        """For the terminal: a strip of marks over the lags for each field, then the verdict."""
        lines = [self.name]
        future, size = sum(lag < 0 for lag in self.lags), self.context
        ruler = _parted(
            "".join(str(abs(lag) % 10) if lag >= 0 else "+" for lag in self.lags), future, size
        )
        wide = max([13, *map(len, self.receptive)])
        if self.receptive:
            lines.append(
                f"  {'lag':<{wide}} {ruler}   {ruler}   (training, acting; + is the future)"
            )
        for name, by_shape in self.receptive.items():
            strips = [_parted(self._strip(name, s, by_shape[s]), future, size) for s in SHAPES]
            lines.append(f"  {name:<{wide}} {'   '.join(strips)}")
        if self.receptive:
            lines.append(
                f"  {SEEN} seen as declared   {NONE} not seen   {WRONG} seen, must not be   "
                f"{MISSING} not seen, must be"
            )
        lines += [f"  {finding}" for finding in self.findings]
        lines.append("  PASSED" if self.passed else f"  REFUSED: {_count(self.findings)}")
        return "\n".join(lines)

    def _strip(self, name: str, shape: str, values: list[float]) -> str:
        must = self.declared[name]
        may = self.allowed.get(shape, self.declared)[name]
        return "".join(
            (MISSING if lag in must else NONE) if value == 0.0 else SEEN if lag in may else WRONG
            for lag, value in zip(self.lags, values, strict=True)
        )


def audit(
    agent: Agent,
    *,
    context: int | None = None,
    mixer: str | None = None,
    head: str | None = None,
    read: Reader = stored,
) -> Audit:
    """Audit an agent; leaves its stack in evaluation mode.

    context: K as declared, by default the agent's own. mixer, head: names to report, by default
    those of the stack's specification. read: what turns trajectories into the fields a model reads.
    Errors which the model raises become findings.
    """
    return _audit(Lab(agent, context or agent.context, read), mixer, head)


def audit_config(
    mixer: str,
    context: int,
    history: str = "states+actions",
    condition: str = "none",
    head: str = "mse",
    *,
    layers: int = 2,
    width: int = 16,
    state: str = "re-encoded",
    **options: Any,
) -> Audit:
    """Audit a registered mixer, alone and as a stack of two replicas, on synthetic data.

    The width does not change what a model can see; a small one keeps this below a second. It is
    rounded up to the mixer's `width_multiple`. options: further fields of `ModelSpec`, e.g. layout.
    state: what acting does when the context is full. Dropout is off. Raises UserError for unknown
    names, and for a state that the mixer cannot carry.
    """
    table = options.get("timesteps", 0) > 0
    layout = Layout(OBSERVATIONS, ACTIONS, POLICIES, history, condition, GOAL, table)
    # A rotary head needs an even number of dimensions.
    heads = 2 * options["heads"] if options.get("heads", 1) > 1 else 1
    multiple = math.lcm(get("mixer", mixer, "mixer").width_multiple, heads)
    spec = ModelSpec(
        mixer=mixer,
        head=head,
        context=context,
        features=layout.features,
        action_dim=ACTIONS,
        width=-(-width // multiple) * multiple,
        layers=layers,
        columns=tuple(layout.columns),
        **options,
    )
    generator = streams.stream("audit", 0, "scales")
    scales = Scales(
        mean=torch.from_numpy(generator.normal(size=OBSERVATIONS)),
        std=torch.from_numpy(generator.uniform(0.5, 2.0, OBSERVATIONS)),
        reward=2.0,
        return_to_go=5.0,
        horizon=HORIZON,
    )
    actions = generator.uniform(-1, 1, (256, ACTIONS))

    def lab(replicas: int) -> Lab:
        policies = [
            build(spec, streams.torch_stream("audit", seed, "init"), actions).double()
            for seed in range(replicas)
        ]
        return Lab(Agent(Stack(policies), layout, scales, context, state), context, stored)

    try:
        alone, stacked = lab(1), lab(2)
    except UserError:
        raise
    except Exception as error:
        line = f"does-not-run (initialisation): {_first_line(error)}"
        return Audit(mixer, context, history, condition, head, (), findings=[line])
    result = _audit(alone, mixer, head)
    if not any(finding.startswith("does-not-run") for finding in result.findings):
        check = (partial(checks.replicas, stacked), partial(checks.stacking, alone, stacked))
        all(_attempt(result, "stacked", each) for each in check)
    return result


def refuse(result: Audit) -> None:
    """Raises UserError, in one line, when the audit found a fault: such a model doesn't train."""
    if not result.passed:
        more = len(result.findings) - 1
        also = f" And {more} more; see `python -m ablate audit {result.mixer}`." if more else ""
        raise UserError(f"audit: {result.name}: refused. {result.findings[0]}{also}")


def _audit(lab: Lab, mixer: str | None, head: str | None) -> Audit:
    layout, spec = lab.agent.layout, lab.agent.stack.spec
    wanted = checks.required(lab)
    free = {shape: checks.allowed(lab, shape) for shape in SHAPES}
    result = Audit(
        mixer=mixer or spec.mixer,
        context=lab.context,
        history=layout.history,
        condition=layout.condition,
        head=head or spec.head,
        lags=lab.lags,
        declared={name: sorted(wanted[name]) for name in lab.fields},
        state=lab.agent.state,
        allowed={s: {name: sorted(free[s][name]) for name in lab.fields} for s in SHAPES},
    )
    found: dict[str, np.ndarray] = {}

    def receptive_field(shape: str, leaks: bool) -> list[str]:
        found[shape] = checks.influence(lab, shape, alone=leaks)
        return checks.receptive_field(lab, shape, found[shape])

    sound = {}
    for shape in SHAPES:
        before = len(result.findings)
        runs = _attempt(result, shape, partial(checks.batch, lab, shape))
        sound[shape] = len(result.findings) == before
        if runs:
            # A leak along the batch would show as influence of everything: run one by one, then.
            _attempt(result, shape, partial(receptive_field, shape, not sound[shape]))
    if len(found) == len(SHAPES):
        result.receptive = {
            name: {shape: _strongest(found[shape][lab.fields.index(name)]) for shape in SHAPES}
            for name in lab.fields
        }
    # The rest compares rows of one batch with each other, which says nothing where rows leak.
    if sound["training"]:
        _attempt(result, "padding", partial(checks.padding, lab))
        _attempt(result, "all positions", partial(checks.positions, lab))
    if all(sound.values()):
        _attempt(result, "step", partial(checks.carried_state, lab))
        _attempt(result, "acting", partial(checks.shapes_agree, lab))
        _attempt(result, "stacked", partial(checks.replicas, lab))
    lab.mode("acting")
    return result


def _attempt(result: Audit, where: str, check: Callable[[], list[str]]) -> bool:
    """Add the findings of a check; what the model raises is a finding too. Whether it ran."""
    try:
        result.findings += check()
    except UserError:
        raise
    except Exception as error:
        result.findings.append(f"does-not-run ({where}): {_first_line(error)}")
        return False
    return True


def _strongest(found: np.ndarray) -> list[float]:
    """(times, lags) to the largest of each lag; what does not exist has no influence."""
    return np.nan_to_num(found).max(axis=0).tolist()


def _parted(strip: str, future: int, context: int) -> str:
    """A strip over the lags with bars before the present and after the context."""
    return "|".join((strip[:future], strip[future : future + context], strip[future + context :]))


def _count(findings: list[str]) -> str:
    return f"{len(findings)} finding" + ("s" if len(findings) > 1 else "")


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {line}."
