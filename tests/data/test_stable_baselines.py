"""Collecting with a user's own stable-baselines3 policy."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ablate.data.commands import collect_with
from ablate.data.formats import files
from ablate.data.stable_baselines import StableBaselines
from ablate.errors import UserError

sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained policies of several algorithms, and a VecNormalize file."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    folder = tmp_path_factory.mktemp("sb3")
    size = {"net_arch": [8]}
    made = {}
    for name, algorithm, env in (
        ("ppo", sb3.PPO, "Pendulum-v1"),
        ("sac", sb3.SAC, "Pendulum-v1"),
        ("td3", sb3.TD3, "Pendulum-v1"),
        ("cart", sb3.PPO, "CartPole-v1"),
        ("dqn", sb3.DQN, "CartPole-v1"),
    ):
        made[name] = folder / f"{name}.zip"
        algorithm("MlpPolicy", env, policy_kwargs=dict(size), device="cpu", seed=0).save(made[name])
    normaliser = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0))
    normaliser.reset()
    for _ in range(50):
        normaliser.step(np.zeros((2, 1)))
    made["normaliser"] = folder / "normaliser.pkl"
    normaliser.save(str(made["normaliser"]))
    return made


@pytest.mark.parametrize(
    ("name", "env", "width", "known"),
    [
        ("ppo", "Pendulum-v1", 1, True),
        ("sac", "Pendulum-v1", 1, False),
        ("td3", "Pendulum-v1", 1, False),
        ("cart", "CartPole-v1", 2, True),
        ("dqn", "CartPole-v1", 2, False),
    ],
)
def test_any_algorithm_collects_whole_valid_episodes(
    saved: dict[str, Path], tmp_path: Path, name: str, env: str, width: int, known: bool
) -> None:
    out = tmp_path / "mine.hdf5"
    collect_with(f"sb3:{saved[name]}", env, 450, out)
    found = files.inspect(out)
    data = found.trajectories.validate()
    assert found.about["environment"] == env
    assert 200 <= len(data.rewards) <= 450
    assert data.actions.shape[1] == width
    assert (data.behaviour_logp is not None) == known
    if width == 2:
        assert set(np.unique(data.actions)) == {-1.0, 1.0}
        assert (data.actions.sum(axis=1) == 0).all()


def test_actions_and_likelihoods_are_the_policys(saved: dict[str, Path]) -> None:
    behaviour = StableBaselines(saved["ppo"], saved["normaliser"])
    raw = np.random.default_rng(0).uniform(-1, 1, (300, 3)).astype(np.float32)
    behaviour.start(raw, np.random.default_rng(0))
    acted = behaviour.act(raw)
    model = sb3.PPO.load(saved["ppo"], device="cpu")
    import pickle

    normal = pickle.loads(saved["normaliser"].read_bytes()).normalize_obs(raw)
    assert np.abs(normal - raw).max() > 0.1
    mean, _ = model.predict(normal, deterministic=True)
    mean = mean / 2  # Pendulum's actions lie in [-2, 2]
    np.testing.assert_allclose(acted.mean, mean, atol=1e-6)
    std = np.exp(model.policy.log_std.detach().numpy()) / 2
    inside = np.abs(acted.actions) < 1
    expected = stats.norm.logpdf(acted.actions.astype(float), mean, std)
    np.testing.assert_allclose(acted.logp[inside[:, 0]], expected[inside], rtol=1e-4)
    # The spread of what was done is the policy's.
    within = (acted.actions - mean)[inside] / std
    assert abs(within.mean()) < 0.25


def test_the_mode_is_repeatable_and_without_likelihood(saved: dict[str, Path]) -> None:
    behaviour = StableBaselines(saved["ppo"], deterministic=True)
    raw = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
    behaviour.start(raw, np.random.default_rng(0))
    first, second = behaviour.act(raw), behaviour.act(raw)
    np.testing.assert_array_equal(first.actions, second.actions)
    assert first.logp is None


def test_the_same_seed_collects_the_same(saved: dict[str, Path], tmp_path: Path) -> None:
    hashes = [
        collect_with(
            f"sb3:{saved['ppo']}", "Pendulum-v1", 400, tmp_path / f"{i}.hdf5", seed=seed
        ).content_hash
        for i, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_bad_requests_are_refused_before_any_work(saved: dict[str, Path], tmp_path: Path) -> None:
    ppo, out = f"sb3:{saved['ppo']}", tmp_path / "out.hdf5"
    wrong = tmp_path / "wrong.zip"
    wrong.write_bytes(b"not a zip file")
    out.touch()
    for message, request in {
        "sb3:FILE.zip": ("ppo.zip", "Pendulum-v1", 100, tmp_path / "a"),
        "there is no such file": ("sb3:none.zip", "Pendulum-v1", 100, tmp_path / "a"),
        "not a policy saved": (f"sb3:{wrong}", "Pendulum-v1", 100, tmp_path / "a"),
        "not registered": (ppo, "Pendulun-v1", 100, tmp_path / "a"),
        "reads observations of 3": (ppo, "CartPole-v1", 100, tmp_path / "a"),
        "1 or more": (ppo, "Pendulum-v1", 0, tmp_path / "a"),
        "--overwrite": (ppo, "Pendulum-v1", 100, out),
    }.items():
        with pytest.raises(UserError, match=message) as refusal:
            collect_with(*request)
        assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="hdf5"):
        collect_with(ppo, "Pendulum-v1", 100, tmp_path / "a", format="hdf")
    with pytest.raises(UserError, match="VecNormalize"):
        collect_with(ppo, "Pendulum-v1", 100, tmp_path / "a", normaliser=wrong)
    assert out.read_bytes() == b""
    assert not (tmp_path / "a").exists()


def test_an_interrupted_collection_leaves_nothing(saved: dict[str, Path], tmp_path: Path) -> None:
    def stop(steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_with(f"sb3:{saved['ppo']}", "Pendulum-v1", 900, tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []
