"""Looking at the runs before all are there, without more false alarms: group-sequential levels.

Seeds are added in declared looks. An error rate alpha is spent over them by a spending function of
the information fraction t (seeds so far over seeds at the last look): `obrien-fleming` spends
hardly any of it early, `pocock` about as much at each look. Source: K. K. G. Lan and D. L. DeMets,
Biometrika 70 (1983) 659-663. A look's nominal level is what its p values are held against.

Two ways from the alpha spent to a look's level:

* `union` (the default): the level is the alpha that this look adds. By the union bound the looks
  together err at most as often as alpha says, whatever the joint law of their p values: t,
  permutation or sign flips, few seeds, failed trials, any number of hypotheses and claims.
* `normal`: the exact crossing probabilities of a Brownian motion, by recursive numerical
  integration (P. Armitage, C. K. McPherson and B. C. Rowe, J. R. Statist. Soc. A 132 (1969)
  235-244; C. Jennison and B. W. Turnbull, Group Sequential Methods (2000), chapter 19). Its levels
  are higher. That p values of t tests at few seeds follow this law is an approximation. Measured
  with Welch's t at nominal 5 %, two arms, first looks of 2 to 4 seeds, 40,000 repetitions: up to
  .051 at equal spreads and .063 at spreads of 3 and 1; by the union .031 and .041 (three looks
  that end far apart: .046 and .050). A family of three under Holm, looks at 3, 4 and 6 seeds:
  .041 and .032; judged at 5 % each time, .080.

Holm's step-down divides a look's level by 1, 2, ...; what is then spent on one hypothesis must be
alpha over the same number. The union's levels divide exactly. For `normal`, `levels` takes the
largest level that is right for every divisor up to `divisors` (W. Maurer and F. Bretz, Statistics
in Biopharmaceutical Research 5 (2013) 311-320, on spending within a step-down test). A hypothesis
that is decided stays decided, which can only help the others. For new data sets, more seeds bring less
information than their number says, so that looks are more alike than the normal law has it: both
ways then err on the safe side.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from ablate.analyse.intervals import Floats
from ablate.study.looks import SequentialSection

_NODES = 100  # Gauss-Legendre points of each look's continuation region
_REACH = 9.0  # standard deviations beyond which a Brownian motion isn't followed


@dataclass(frozen=True)
class Plan:
    """Declared looks and what each may spend.

    seeds: at every look; spent: alpha spent up to and with each look; levels: the nominal level of
    each look's p values.
    """

    seeds: tuple[int, ...]
    alpha: float
    spending: str
    bound: str
    spent: tuple[float, ...]
    levels: tuple[float, ...]


def plan(declared: SequentialSection, alpha: float, divisors: int = 1) -> Plan:
    """The levels of the declared looks at an error rate alpha.

    divisors: the largest number by which Holm, two-sided tests and claims that must all hold divide
    a level.
    """
    fractions = [n / declared.looks[-1] for n in declared.looks]
    spent = tuple(spend(declared.spending, t, alpha) for t in fractions)
    found = levels(fractions, spent, declared.bound, divisors)
    return Plan(declared.looks, alpha, declared.spending, declared.bound, spent, found)


def spend(kind: str, fraction: float, alpha: float) -> float:
    """Alpha spent, on one side, when `fraction` (0 to 1) of the information is there."""
    if fraction >= 1.0:
        return alpha
    if kind == "pocock":
        return alpha * math.log(1.0 + (math.e - 1.0) * fraction)
    return float(2.0 * stats.norm.sf(stats.norm.isf(alpha / 2.0) / math.sqrt(fraction)))


def levels(
    fractions: Sequence[float], spent: Sequence[float], bound: str, divisors: int = 1
) -> tuple[float, ...]:
    """The nominal level of each look (one-sided), from the alpha spent up to it."""
    steps = np.diff([0.0, *spent])
    if bound == "union":
        return tuple(float(step) for step in steps)
    found = [
        divisor
        * stats.norm.sf(boundaries(tuple(fractions), tuple(s / divisor for s in spent), sides=1))
        for divisor in _grid(divisors)
    ]
    return tuple(float(level) for level in np.min(found, axis=0))


def _grid(divisors: int) -> list[int]:
    """All divisors up to 12, then some: levels fall slowly with them, towards the union's."""
    dense = [d for d in range(1, divisors + 1) if d <= 12]
    return sorted(
        {*dense, *(round(12 * 1.5**i) for i in range(20) if 12 * 1.5**i < divisors)}
        | {max(divisors, 1)}
    )


@functools.cache
def boundaries(
    fractions: tuple[float, ...], spent: tuple[float, ...], sides: int
) -> tuple[float, ...]:
    """The z values at which looks stop so that the chance of having stopped is `spent`.

    fractions (K,) of the information, increasing to 1; spent (K,): of one side (`sides` = 1), or of
    both together (`sides` = 2, symmetric).
    """
    walk = _Walk(sides)
    found = []
    before = 0.0
    for t, total in zip(fractions, spent, strict=True):
        found.append(walk.stop(t, total - before))
        before = total
    return tuple(found)


def crossing(fractions: Sequence[float], z: Sequence[float], sides: int) -> float:
    """The chance that a standard Brownian motion crosses z * sqrt(t) at one of the looks."""
    walk = _Walk(sides)
    return sum(walk.step(t, bound) for t, bound in zip(fractions, z, strict=True))


def constant(fractions: Sequence[float], alpha: float, power: float = 0.0) -> tuple[float, ...]:
    """Classical two-sided bounds z_k = c * t_k ** -power: Pocock's (0) and O'Brien-Fleming's (1/2).

    Sources: S. J. Pocock, Biometrika 64 (1977) 191-199; P. C. O'Brien and T. R.
    Fleming, Biometrics 35 (1979) 549-556.
    """
    shape = [t**-power for t in fractions]
    c = optimize.brentq(
        lambda c: crossing(fractions, [c * s for s in shape], 2) - alpha, 0.5, 10.0, xtol=1e-10
    )
    return tuple(float(c * s) for s in shape)


@functools.cache
def _quadrature() -> tuple[Floats, Floats]:
    """Gauss-Legendre points and weights on (-1, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


class _Walk:
    """A Brownian motion that is watched at looks: its density while it hasn't been stopped."""

    def __init__(self, sides: int) -> None:
        self.sides = sides
        self.t = 0.0
        self.points: Floats = np.zeros(1)
        self.mass: Floats = np.ones(1)  # density times the points' quadrature weights

    def crossed(self, t: float, z: float) -> float:
        """The chance of being beyond z * sqrt(t) at t, and inside at all looks before."""
        scale = math.sqrt(t - self.t)
        up = special.ndtr((self.points - z * math.sqrt(t)) / scale)
        if self.sides == 2:
            up = up + special.ndtr((-z * math.sqrt(t) - self.points) / scale)
        return float(self.mass @ up)

    def step(self, t: float, z: float) -> float:
        """Go on to t, stopping what is beyond; the chance of that."""
        chance = self.crossed(t, z)
        top = min(z, _REACH) * math.sqrt(t)
        low = -top if self.sides == 2 else -_REACH * math.sqrt(t)
        nodes, weights = _quadrature()
        points = low + (top - low) * (nodes + 1.0) / 2.0
        scale = math.sqrt(t - self.t)
        steps = (points[:, None] - self.points[None]) / scale
        density = np.exp(-0.5 * np.square(steps)) / (scale * math.sqrt(2.0 * math.pi)) @ self.mass
        self.points, self.mass, self.t = points, density * weights * (top - low) / 2.0, t
        return chance

    def stop(self, t: float, chance: float) -> float:
        """The z at which `chance` is stopped at t; goes on from there."""
        z = optimize.brentq(
            lambda z: math.log(max(self.crossed(t, z), 1e-300)) - math.log(chance), -5.0, 30.0
        )
        self.step(t, float(z))
        return float(z)
