"""Data of the pendulums: what the pump does, and what of a name means what."""

import numpy as np
import pytest

from ablate.data.catalogue import spec
from ablate.data.families.pendulum import WANTED, Pump
from ablate.envs.pendulum import HORIZON, DoublePendulum, Pendulum
from ablate.errors import UserError


@pytest.mark.parametrize(("kind", "env"), [("single", Pendulum), ("double", DoublePendulum)])
def test_the_pump_reaches_its_energy(kind, env):
    made = spec(f"pendulum/{kind}-20-v0")
    train, held_out = (part.validate() for part in made.generate())
    assert (train.num_episodes, held_out.num_episodes) == (20, 100)
    assert (train.lengths == HORIZON).all()
    energy = env.energy(train.simulator_state.astype(np.float64)).reshape(20, HORIZON)
    assert np.abs(energy[:, -20:].mean() - WANTED[kind]) < 1.5
    # A pump that sees what is shown does what it did, but for its noise.
    again = Pump(kind, noise=0.0)
    again.start(train.observations, np.random.default_rng(0))
    np.testing.assert_array_equal(again.act(train.observations).mean, train.behaviour_action)
    anchors = made.anchors()
    assert anchors.score(train.returns).mean() == pytest.approx(100, abs=40)


def test_names():
    assert spec("pendulum/double-v0@mask-velocity").observable == [0, 1, 2, 3]
    assert spec("pendulum/single-v0@mask-position").observable == [2]
    with pytest.raises(UserError, match="Did you mean 'pendulum/single-v0'"):
        spec("pendulum/singel-v0")
    with pytest.raises(UserError, match="allowed: 1 to 100000"):
        spec("pendulum/single-1000000-v0")
