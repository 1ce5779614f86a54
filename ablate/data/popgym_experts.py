"""Scripted experts of POPGym's tasks: exact memories for the card games, feedback for the others.

The card games' experts see what is shown and remember; they earn the best return, 1, always. The
controllers are privileged: they see the hidden velocities. All read the environment's
`full_observation`, whose first numbers are what is shown. Suits, colours, ranks and counts are
numbers, one-hot in observations and actions.
"""

from __future__ import annotations

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, decided
from ablate.errors import UserError

SUITS = 4


class FirstCard(Behaviour):
    """RepeatFirst: the suit of the first card."""

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._first = observation[:, :SUITS].argmax(axis=1)

    def act(self, observation: np.ndarray) -> Acted:
        return decided(self._first, SUITS)


class PreviousCard(Behaviour):
    """RepeatPrevious: the suit seen k - 1 timesteps ago (k = 1 is now); the first, before that."""

    def __init__(self, k: int) -> None:
        self.k = k

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._seen: list[np.ndarray] = []

    def act(self, observation: np.ndarray) -> Acted:
        self._seen.append(observation[:, :SUITS].argmax(axis=1))
        self._seen = self._seen[-self.k :]
        return decided(self._seen[0], SUITS)


class BackwardsCards(Behaviour):
    """Autoencode: the suits seen, last one first. While watching, it says the suit that it sees.

    Observation: play, watch (one-hot), suit (one-hot). The first observation of the playing phase
    still shows a card, the last one.
    """

    def __init__(self, cards: int) -> None:
        self.cards = cards

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._stack = np.zeros((len(observation), self.cards), dtype=np.int64)
        self._depth = np.zeros(len(observation), dtype=np.int64)  # cards that are still to be said
        self._playing = np.zeros(len(observation), dtype=bool)

    def act(self, observation: np.ndarray) -> Acted:
        rows = np.arange(len(observation))
        watching = observation[:, 1] > observation[:, 0]
        shown = observation[:, 2 : 2 + SUITS].argmax(axis=1)
        new = ~self._playing & (self._depth < self.cards)
        self._stack[rows[new], self._depth[new]] = shown[new]
        self._depth += new
        self._playing |= ~watching
        said = self._stack[rows, np.maximum(self._depth - 1, 0)]
        self._depth = np.maximum(self._depth - self._playing, 0)
        return decided(said, SUITS)


class Counter(Behaviour):
    """CountRecall: how often the queried one of `kinds` has been dealt so far; `answers` to choose from.

    Observation: the card dealt now (one-hot), the card queried now (one-hot).
    """

    def __init__(self, kinds: int, answers: int) -> None:
        self.kinds = kinds
        self.answers = answers

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._counts = np.zeros((len(observation), self.kinds), dtype=np.int64)

    def act(self, observation: np.ndarray) -> Acted:
        rows = np.arange(len(observation))
        dealt = observation[:, : self.kinds].argmax(axis=1)
        queried = observation[:, self.kinds : 2 * self.kinds].argmax(axis=1)
        self._counts[rows, dealt] += 1
        return decided(np.minimum(self._counts[rows, queried], self.answers - 1), self.answers)


class CartPoleFeedback(Behaviour):
    """Pushes with the sign of a linear feedback of the state: position, angle and their velocities.

    The gain is that of the linear-quadratic regulator of gymnasium's cart-pole about the upright
    (state cost 1 each, force cost 0.01), scaled so that the angle's is 1.
    """

    GAIN = np.array([0.092, 0.159, 1.0, 0.275])

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        _need(observation, 6, "CartPoleFeedback")

    def act(self, observation: np.ndarray) -> Acted:
        return decided((observation[:, 2:6] @ self.GAIN > 0).astype(np.int64), 2)


class PendulumSwingUp(Behaviour):
    """Pumps energy with full torque; feeds back angle and velocity where that saves torque.

    Reads cos and sin of the angle from upright and the angular velocity (the hidden state). The
    energy is that of gymnasium's pendulum (g 10, mass and length 1), 15 at rest upright.
    """

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        _need(observation, 5, "PendulumSwingUp")

    def act(self, observation: np.ndarray) -> Acted:
        cos, sin, velocity = observation[:, 2:5].astype(np.float64).T
        feedback = -(10.0 * np.arctan2(sin, cos) + 3.0 * velocity)  # torque
        lacking = 15.0 - (velocity**2 / 2 + 15.0 * cos)
        pump = 2.0 * np.sign(lacking) * np.where(velocity >= 0, 1.0, -1.0)
        torque = np.where(np.abs(feedback) < 6.0, feedback, pump)
        actions = np.clip(torque / 2.0, -1.0, 1.0).astype(np.float32)[:, None]
        return Acted(actions, np.zeros(len(actions), dtype=np.int64), None, actions)


def _need(observation: np.ndarray, width: int, who: str) -> None:
    if observation.shape[1] < width:
        raise UserError(
            f"{who}: it was shown {observation.shape[1]} numbers; {width} are needed, the hidden"
            " state among them (collect with a privileged behaviour)."
        )
