"""What an audit found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHAPES = ("training", "acting")
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
        lines.append("  PASSED" if self.passed else f"  REFUSED: {count(self.findings)}")
        return "\n".join(lines)

    def _strip(self, name: str, shape: str, values: list[float]) -> str:
        must = self.declared[name]
        may = self.allowed.get(shape, self.declared)[name]
        return "".join(
            (MISSING if lag in must else NONE) if value == 0.0 else SEEN if lag in may else WRONG
            for lag, value in zip(self.lags, values, strict=True)
        )


def _parted(strip: str, future: int, context: int) -> str:
    """A strip over the lags with bars before the present and after the context."""
    return "|".join((strip[:future], strip[future : future + context], strip[future + context :]))


def count(findings: list[str]) -> str:
    """How many there are, in words."""
    return f"{len(findings)} finding" + ("s" if len(findings) > 1 else "")
