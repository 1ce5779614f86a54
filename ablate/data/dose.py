"""The dose meter: how much history tells about the next state and the next action, beyond the present.

Two questions are asked of a data set, each by the same regressor with and without history:

    dynamics   o_{t+1} - o_t  from (o_t, a_t, t)  and from those and the past
    behaviour  a_t            from (o_t, t)       and from those and the past

Where both gains are 0 the data are Markov in what is shown. "The past" is the last LAGS timesteps
one by one, means over 9 to 16, 17 to 32, ... timesteps back, and the episode's first observation.

The regressor is a ridge regression followed by a small neural network on its residuals; everything
is cross-fitted with folds of whole episodes. An imperfect regressor leaves a part of what the present
tells in its residuals, and history, from which the present can be guessed, would be credited with it:
by linear regression alone with 0.07 in R2 of a Hopper's dynamics, which are all but Markov. The gain is
therefore taken only along what can't be had from the present: the prediction with history minus that
prediction's own regression on the present, as in the projected covariance measure (Lundborg, Kim,
Shah, Samworth 2024, "The projected covariance measure for assumption-lean variable significance
testing"), scaled by a factor that other folds estimate.

What is printed is what this regressor finds; a better one may find more. A small rest of the error
above remains: HalfCheetah, which is Markov, reads 0.0002 in R2 and 0.03 nats.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.nn import functional

from ablate.data.normalise import moments
from ablate.data.streams import stream, torch_stream
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError, unknown

Array = NDArray[np.float64]
QUESTIONS = ("dynamics", "behaviour")
TARGETS = 20_000  # timesteps that are predicted, drawn from all of them
HISTORY = 64  # timesteps back
LAGS = 8  # of these one by one
FOLDS = 3
# A coordinate is taken as known no better than to this part of its standard deviation: log-likelihoods
# of what is deterministic would be without bound.
RESOLUTION = 0.05
TINY = 1e-6  # what varies less is constant
OUTLIER = 10.0  # standardised inputs are cut off here
# The network: found on Hopper, HalfCheetah and Ant as what explains most in about two seconds.
WIDTH, DEPTH, EPOCHS, BATCH, LEARNING_RATE, DECAY = 128, 3, 30, 256, 6e-3, 1e-2
PATIENCE = 10  # epochs without a better one
VALIDATION = 0.1  # of the training episodes, to choose the epoch at which the network is best


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, clustered by episode."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """What history adds to one question.

    Attributes:
        question: one of QUESTIONS. discrete: whether the target is one of several choices.
        present: R2 from the present alone, averaged over the target's coordinates.
        gain: in R2, averaged in the same way. nats: in log-likelihood per timestep.
        targets, episodes: timesteps that were predicted, and how many episodes they are from.
        history: how many timesteps back was looked.
    """

    question: str
    discrete: bool
    present: float
    gain: Interval
    nats: Interval
    targets: int
    episodes: int
    history: int


def measure(
    trajectories: Trajectories,
    question: str,
    *,
    history: int = HISTORY,
    timed: bool = True,
    targets: int = TARGETS,
) -> Reading:
    """How much history adds to one of QUESTIONS; the same numbers every time (on one machine).

    timed: the timestep is given with and without history. If not, a part of what history tells can be the
    time. Actions that are one choice of several (one coordinate 1, the others -1) are predicted as
    probabilities and their log-likelihood is the multinomial one, else it is that of a Gaussian with
    the residuals' covariance.

    Raises UserError for an unknown question, a history below 1, fewer than 2 * FOLDS episodes that
    have a target, or a target that never varies.
    """
    if question not in QUESTIONS:
        raise unknown("the dose meter's question", question, QUESTIONS)
    if history < 1:
        raise UserError(
            f"the dose meter: the history is {history} timesteps; at least 1 is needed."
        )
    rows = _targets(trajectories, question, targets)
    episode = np.searchsorted(trajectories.episode_starts, rows, side="right") - 1
    names, episode = np.unique(episode, return_inverse=True)
    if len(names) < 2 * FOLDS:
        raise UserError(
            f"{trajectories.name}: {len(names)} episodes have something to predict; the dose meter"
            f" needs at least {2 * FOLDS}."
        )
    present, past, target, discrete = _table(trajectories, rows, question, history, timed)
    fold = stream("dose", 0, f"{question}/folds").permutation(len(names))[episode] % FOLDS
    mean, spread = target.mean(axis=0), target.std(axis=0)
    varied = spread > TINY
    if not varied.any():
        raise UserError(f"{trajectories.name}: what the dose meter predicts never varies.")
    scaled = (target - mean)[:, varied] / spread[varied]
    with one_thread():
        without = _predict(present, scaled, fold, episode, question)
        left = scaled - without
        begun = trajectories.timestep[rows] > 0
        correction = _correction(present, past, scaled, left, fold, episode, begun, question)
    with_past = without + correction
    scatter = np.square(scaled)
    squares = np.square(left), np.square(scaled - with_past)
    if discrete:
        known = target.argmax(axis=1)
        odds = []
        for each in (without, with_past):
            chance = np.tile(mean, (len(rows), 1))
            chance[:, varied] += each * spread[varied]
            odds.append(_choice(chance, known, fold))
    else:
        odds = [_gaussian(scaled - each, fold) for each in (without, with_past)]
    return Reading(
        question=question,
        discrete=discrete,
        present=float(1 - (squares[0].sum(axis=0) / scatter.sum(axis=0)).mean()),
        gain=_ratio(squares[0] - squares[1], scatter, episode),
        nats=_ratio((odds[1] - odds[0])[:, None], np.ones((len(rows), 1)), episode),
        targets=len(rows),
        episodes=len(names),
        history=history,
    )


# --- what is predicted, and from what ---


def _targets(trajectories: Trajectories, question: str, count: int) -> NDArray[np.int64]:
    """At most `count` timesteps that have a target, drawn evenly from all of them, in order."""
    rows = np.arange(len(trajectories.rewards))
    if question == "dynamics" and trajectories.final_observations is None:
        rows = np.delete(rows, trajectories.episode_starts[1:] - 1)
    if len(rows) > count:
        rows = np.sort(stream("dose", 0, f"{question}/targets").choice(rows, count, replace=False))
    return rows


def _table(
    trajectories: Trajectories, rows: NDArray[np.int64], question: str, history: int, timed: bool
) -> tuple[Array, Array, Array, bool]:
    """Standardised inputs of the present (R, P) and the past (R, Q), the target (R, D), is it a choice."""
    observations, actions = trajectories.observations, trajectories.actions
    time = trajectories.timestep[rows]
    first = rows - time
    present = [observations[rows]]
    if question == "dynamics":
        present.append(actions[rows])
        after = observations[np.minimum(rows + 1, len(observations) - 1)]
        if trajectories.final_observations is not None:
            episode = np.searchsorted(trajectories.episode_starts, rows, side="right") - 1
            last = rows + 1 == trajectories.episode_starts[episode + 1]
            after[last] = trajectories.final_observations[episode[last]]
        target, discrete = after.astype(np.float64) - observations[rows], False
    else:
        target = actions[rows].astype(np.float64)
        discrete = _is_choice(actions)
        if discrete:
            target = (target > 0).astype(np.float64)
    if timed:
        # The logarithm tells early steps apart, which often differ most.
        present.append(np.stack([time, np.log1p(time)], axis=1).astype(np.float32))
    past = [observations[first]]
    mean, _ = moments(observations)
    for near, far in _blocks(history):
        block = np.zeros((len(rows), observations.shape[1] + actions.shape[1]))
        for lag in range(near, far + 1):
            there = time >= lag
            at = rows[there] - lag
            block[there] += np.concatenate([observations[at] - mean, actions[at]], axis=1)
        # Before the episode there is the mean observation, so that an offset changes nothing.
        past.append(block / np.clip(time - near + 1, 1, far - near + 1)[:, None])
    return _standardise(np.hstack(present)), _standardise(np.hstack(past)), target, discrete


def _is_choice(actions: np.ndarray) -> bool:
    """Whether every action is one of several choices: one coordinate 1 and the others -1."""
    return bool(
        actions.shape[1] > 1
        and (np.abs(actions) == 1).all()
        and ((actions > 0).sum(axis=1) == 1).all()
    )


def _blocks(history: int) -> list[tuple[int, int]]:
    """Lags (from, to) that are averaged: 1, 2, ... LAGS alone, then LAGS + 1 to 2 LAGS, doubling."""
    blocks = [(lag, lag) for lag in range(1, min(LAGS, history) + 1)]
    near = LAGS + 1
    while near <= history:
        blocks.append((near, min(2 * (near - 1), history)))
        near = 2 * (near - 1) + 1
    return blocks


def _standardise(inputs: np.ndarray) -> Array:
    """Zero mean, unit variance, cut off at OUTLIER; columns that are constant are left out."""
    inputs = inputs.astype(np.float64)
    centred, spread = inputs - inputs.mean(axis=0), inputs.std(axis=0)
    varied = spread > TINY
    return np.clip(centred[:, varied] / spread[varied], -OUTLIER, OUTLIER)


# --- the regressor ---


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: for networks this small more are slower, and sums come out the same anywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _predict(
    inputs: Array, target: Array, fold: np.ndarray, episode: np.ndarray, name: str
) -> Array:
    """Predictions of the target (R, D), each row's by the regressor fitted on the other folds."""
    found = np.empty_like(target)
    for k in range(FOLDS):
        train = fold != k
        model = _fit(inputs[train], target[train], episode[train], f"{name}/present/{k}")
        found[~train] = model(inputs[~train])
    return found


def _correction(
    present: Array,
    past: Array,
    target: Array,
    residual: Array,
    fold: np.ndarray,
    episode: np.ndarray,
    begun: np.ndarray,
    name: str,
) -> Array:
    """What history adds to the prediction, (R, D), as far as it can't be had from the present.

    residual: what the present leaves of the target, (R, D). begun: rows (R,) that have a past.
    """
    both = np.hstack([present, past])
    direction = np.zeros_like(target)
    for k in range(FOLDS):
        train, test = begun & (fold != k), begun & (fold == k)
        if len(np.unique(episode[train])) < 2:  # episodes of one step have no past
            continue
        found = _fit(both[train], target[train], episode[train], f"{name}/past/{k}")
        shadow = _fit(present[train], found(both[train]), episode[train], f"{name}/shadow/{k}")
        direction[test] = found(both[test]) - shadow(present[test])
    added = np.empty_like(residual)
    for k in range(FOLDS):
        train = fold != k
        added[~train] = direction[~train] * _scale(
            direction[train], residual[train], episode[train]
        )
    return added


def _scale(direction: Array, residual: Array, episode: np.ndarray) -> Array:
    """The factor (D,) in [0, 1] of each coordinate's direction that explains most of its residual.

    Shrunk by its own variance c -> c - se^2 / c, to 0 where it is within one standard error of it: what
    isn't told from chance isn't used, nor anything where the present leaves less than RESOLUTION.
    """
    along, size = direction * residual, np.square(direction)
    total = np.maximum(size.sum(axis=0), 1e-12)
    factor = along.sum(axis=0) / total
    error = np.sqrt(np.square(_sums(along - factor * size, episode)).sum(axis=0)) / total
    positive = np.maximum(factor, 1e-12)
    open_ = np.square(residual).mean(axis=0) > RESOLUTION**2
    return np.clip(positive - np.square(error) / positive, 0.0, 1.0) * open_


def _fit(inputs: Array, target: Array, episode: np.ndarray, name: str) -> Callable[[Array], Array]:
    """Ridge regression, then a network on its residuals: (R, P) -> (R, D)."""
    line = _ridge(inputs, target)
    left = target - line(inputs)
    spread = left.std(axis=0)
    if not (spread > 1e-9).any():
        return line
    scale = np.where(spread > 1e-9, spread, 1.0)
    net = _network(inputs, left / scale, episode, name)
    return lambda rows: line(rows) + scale * net(rows)


def _ridge(inputs: Array, target: Array) -> Callable[[Array], Array]:
    """Linear regression with the penalty of least generalised cross-validation error."""
    count = len(inputs)
    centre, middle = inputs.mean(axis=0), target.mean(axis=0)
    x, y = inputs - centre, target - middle
    values, vectors = np.linalg.eigh(x.T @ x)
    values = np.maximum(values, 0.0)
    along = vectors.T @ (x.T @ y)  # (P, D)
    best, chosen = np.inf, np.zeros_like(along)
    total = np.square(y).sum()
    for penalty in count * np.logspace(-7, 1, 17):
        shrunk = along / (values + penalty)[:, None]
        error = total - 2 * (along * shrunk).sum() + (values[:, None] * np.square(shrunk)).sum()
        freedom = 1 + (values / (values + penalty)).sum()
        score = error / (1 - min(freedom / count, 0.99)) ** 2
        if score < best:
            best, chosen = score, shrunk
    weights = vectors @ chosen
    return lambda rows: (rows - centre) @ weights + middle


def _network(
    inputs: Array, target: Array, episode: np.ndarray, name: str
) -> Callable[[Array], Array]:
    """A network fitted by AdamW, as of the epoch that predicts held-out episodes best (or zero)."""
    rng = stream("dose", 0, name)
    names = np.unique(episode)
    chosen = rng.permutation(names)[: max(1, round(VALIDATION * len(names)))]
    judge = np.isin(episode, chosen)
    x, y = (torch.from_numpy(each.astype(np.float32)) for each in (inputs, target))
    x_judge, y_judge, x, y = x[judge], y[judge], x[~judge], y[~judge]
    init = torch_stream("dose", 0, name)
    widths = [x.shape[1], *[WIDTH] * DEPTH, y.shape[1]]
    layers: list[torch.Tensor] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        gain = max(fan_in, 1) ** -0.5 if len(layers) < 2 * DEPTH else 0.0  # it starts at zero
        layers += [gain * torch.randn(fan_out, fan_in, generator=init), torch.zeros(fan_out)]

    def forward(rows: torch.Tensor, layers: list[torch.Tensor]) -> torch.Tensor:
        for i in range(0, len(layers) - 2, 2):
            rows = functional.gelu(functional.linear(rows, layers[i], layers[i + 1]))
        return functional.linear(rows, layers[-2], layers[-1])

    average = [layer.clone() for layer in layers]
    for layer in layers:
        layer.requires_grad_()
    optimiser = torch.optim.AdamW(layers, lr=LEARNING_RATE, weight_decay=DECAY)
    batches = max(1, len(x) // BATCH)
    steps, wait = 0, 0
    best, kept = float(y_judge.square().mean()), [torch.zeros_like(layer) for layer in layers]
    for _ in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(len(x)))
        for at in order[: batches * BATCH].tensor_split(batches):
            steps += 1
            done = steps / (EPOCHS * batches)
            rate = (
                LEARNING_RATE * min(1.0, steps / batches) * (0.55 + 0.45 * math.cos(math.pi * done))
            )
            optimiser.param_groups[0]["lr"] = rate
            loss = (forward(x[at], layers) - y[at]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                # The average over about an epoch: what it predicts doesn't depend on the last batches.
                weight = max(1 / batches, 10 / (steps + 10))
                torch._foreach_lerp_(average, layers, weight)
        with torch.no_grad():
            error = float((forward(x_judge, average) - y_judge).square().mean())
        wait += 1
        if error < best:
            best, kept, wait = error, [layer.clone() for layer in average], 0
        if wait == PATIENCE:
            break

    def predict(rows: Array) -> Array:
        with torch.no_grad():
            return (
                forward(torch.from_numpy(rows.astype(np.float32)), kept).numpy().astype(np.float64)
            )

    return predict


# --- how well it is predicted ---


def _gaussian(residual: Array, fold: np.ndarray) -> Array:
    """Log density (R,) under a Gaussian with the other folds' covariance, of what was to be predicted.

    It is expected over a reading error of RESOLUTION in every coordinate.
    """
    found = np.empty(len(residual))
    for k in range(FOLDS):
        train = fold != k
        covariance = residual[train].T @ residual[train] / train.sum()
        covariance += RESOLUTION**2 * np.eye(residual.shape[1])
        factor = np.linalg.cholesky(covariance)
        white = np.linalg.solve(factor, residual[~train].T)  # (D, R)
        scale = np.log(np.diag(factor)).sum() + 0.5 * len(factor) * np.log(2 * np.pi)
        blur = 0.5 * RESOLUTION**2 * np.square(np.linalg.inv(factor)).sum()
        found[~train] = -0.5 * np.square(white).sum(axis=0) - scale - blur
    return found


def _choice(probabilities: Array, known: np.ndarray, fold: np.ndarray) -> Array:
    """Log probability (R,) of the choices made.

    Predictions are made probabilities by cutting off at 0 and 1 and mixing in the frequencies of the other
    folds, as much as suits these best.
    """
    size = probabilities.shape[1]
    clipped = np.clip(probabilities, 0.0, 1.0) + 1e-12
    clipped /= clipped.sum(axis=1, keepdims=True)
    rows = np.arange(len(known))
    found = np.empty(len(known))
    for k in range(FOLDS):
        train = fold != k
        common = (np.bincount(known[train], minlength=size) + 0.5) / (train.sum() + 0.5 * size)
        shares = np.logspace(-4, 0, 33)

        def chosen(share: float, at: np.ndarray, common: Array = common) -> Array:
            return np.log((1 - share) * clipped[rows[at], known[at]] + share * common[known[at]])

        best = max(shares, key=lambda share: float(chosen(share, train).sum()))
        found[~train] = chosen(best, ~train)
    return found


def _ratio(gains: Array, scatter: Array, episode: np.ndarray) -> Interval:
    """Mean over coordinates of sum(gains) / sum(scatter), (R, D) each, with a t interval over episodes."""
    total = scatter.sum(axis=0)
    each = gains.sum(axis=0) / total
    # The ratio's influence, summed within episodes: they are the independent units.
    influence = _sums(((gains - each * scatter) / total).mean(axis=1, keepdims=True), episode)
    count = len(influence)
    error = float(np.sqrt(count / (count - 1) * np.square(influence).sum()))
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    estimate = float(each.mean())
    return Interval(estimate, estimate - reach, estimate + reach)


def _sums(values: Array, episode: np.ndarray) -> Array:
    """Sums (E, D) of values (R, D) within episodes numbered from 0; absent numbers give zeros."""
    sums = np.zeros((int(episode.max()) + 1, values.shape[1]))
    np.add.at(sums, episode, values)
    return sums
