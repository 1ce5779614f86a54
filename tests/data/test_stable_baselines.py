"""Collecting with a user's own stable-baselines3 policy."""

import base64
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats
from torch import nn

from ablate.data.commands import collect_with
from ablate.data.formats import files
from ablate.data.stable_baselines import StableBaselines, read_moments
from ablate.data.trusted import Trusted
from ablate.errors import UserError

sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")


TORQUE = spaces.Box(-2.0, 2.0, (1,))
SEEN = spaces.Box(-2.0, 3.0, (4,))
PUSHED = spaces.Box(np.float32([-2, -1]), np.float32([1.5, 4]))
NAMED = spaces.Dict(z=spaces.Box(-1, 1, (2,)), a=spaces.Box(-1, 1, (3,)), d=spaces.Discrete(3))


class Still(gymnasium.Env[Any, Any]):
    """Any spaces, and nothing happens."""

    def __init__(self, seen: Any, done: Any) -> None:
        self.observation_space, self.action_space = seen, done

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}


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
    behaviour = StableBaselines(saved["ppo"], TORQUE, saved["normaliser"])
    raw = np.random.default_rng(0).uniform(-1, 1, (300, 3)).astype(np.float32)
    behaviour.start(raw, np.random.default_rng(0))
    acted = behaviour.act(raw)
    model = sb3.PPO.load(saved["ppo"], device="cpu")
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
    behaviour = StableBaselines(saved["ppo"], TORQUE, deterministic=True)
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
        "gives Box of 1 numbers": (ppo, "CartPole-v1", 100, tmp_path / "a"),
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


SDE = {"use_sde": True}
CASES: dict[str, tuple[str, Any, Any, dict[str, Any], dict[str, Any]]] = {
    "ppo": ("PPO", SEEN, PUSHED, {}, {}),
    "a2c": ("A2C", SEEN, PUSHED, {"activation_fn": nn.ELU, "net_arch": {"pi": [7, 5], "vf": [3]}}, {}),
    "sac": ("SAC", SEEN, PUSHED, {}, {}),
    "tqc": ("SAC", SEEN, PUSHED, {"activation_fn": nn.Tanh}, {}),
    "td3": ("TD3", SEEN, PUSHED, {}, {}),
    "ddpg": ("DDPG", SEEN, PUSHED, {"net_arch": []}, {}),
    "dqn": ("DQN", SEEN, spaces.Discrete(3), {}, {}),
    "choices": ("PPO", SEEN, spaces.MultiDiscrete([3, 2]), {}, {}),
    "tables": ("PPO", spaces.MultiDiscrete([2, 3]), spaces.Discrete(3), {}, {}),
    "named": ("PPO", NAMED, PUSHED, {}, {}),
    "ppo-sde": ("PPO", SEEN, PUSHED, {"squash_output": True, "use_expln": True, "full_std": False}, SDE),
    "sac-sde": ("SAC", SEEN, PUSHED, {}, SDE),
    "sac-sde-free": ("SAC", SEEN, PUSHED, {"clip_mean": 0.0}, SDE),
}  # fmt: skip


def untrained(path: Path, name: str) -> Any:
    """A policy of `CASES` whose weights aren't those of its start; saved as `path`."""
    algorithm, seen, done, arguments, options = CASES[name]
    kind = "MultiInputPolicy" if seen is NAMED else "MlpPolicy"
    arguments = {"net_arch": [8]} | arguments
    small = {"n_steps": 64} if algorithm in ("PPO", "A2C") else {"buffer_size": 4}
    model = getattr(sb3, algorithm)(
        kind, Still(seen, done), policy_kwargs=dict(arguments), device="cpu", **small, **options
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in model.policy.parameters():
            each += 0.3 * torch.randn(each.shape, generator=generator)
    model.save(path)
    return model


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of a file of stable-baselines3 whose members are changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


@pytest.mark.parametrize("name", CASES)
def test_actions_are_those_that_stable_baselines_predicts(name: str, tmp_path: Path) -> None:
    model = untrained(tmp_path / "x.zip", name)
    _, space, done, *_ = CASES[name]
    path = tmp_path / "x.zip"
    if name == "tqc":  # its actor is SAC's

        def change(member: str, content: bytes) -> bytes:
            text = content.replace(b"stable_baselines3.sac.policies", b"sb3_contrib.tqc.policies")
            return text if member == "data" else content

        path = rewritten(path, tmp_path / "tqc.zip", change)
    space.seed(0)
    observations = [space.sample() for _ in range(50)]
    flat = np.stack([spaces.utils.flatten(space, each) for each in observations])
    behaviour = StableBaselines(path, done, deterministic=True)
    behaviour.start(flat, np.random.default_rng(0))
    found = behaviour.act(flat).actions
    named = (
        {key: np.stack([each[key] for each in observations]) for key in NAMED}
        if space is NAMED
        else None
    )
    expected, _ = model.predict(named or np.stack(observations), deterministic=True)
    if isinstance(done, spaces.Box):
        middle, half = (done.high + done.low) / 2, (done.high - done.low) / 2
        np.testing.assert_allclose(found * half + middle, expected, atol=2e-6)
    else:
        ends = np.cumsum(np.ravel(getattr(done, "nvec", getattr(done, "n", 0))))[:-1]
        picked = [each.argmax(axis=1) for each in np.split(found, ends, axis=1)]
        np.testing.assert_array_equal(np.stack(picked, 1), expected.reshape(50, -1))


@pytest.mark.parametrize("name", ["ppo", "choices", "sac-sde"])
def test_what_is_drawn_has_the_policys_own_law(name: str, tmp_path: Path) -> None:
    model = untrained(tmp_path / "x.zip", name)
    done = CASES[name][2]
    row = np.linspace(-1, 1, 4, dtype=np.float32)
    behaviour = StableBaselines(tmp_path / "x.zip", done)
    behaviour.start(row[None], np.random.default_rng(0))
    acted = behaviour.act(np.repeat(row[None], 4000, 0))
    rows = torch.from_numpy(row[None])
    if name == "choices":
        logp = model.policy.get_distribution(rows).log_prob
        for picked in ((0, 0), (2, 1)):
            mine = (acted.actions[:, picked[0]] > 0) & (acted.actions[:, 3 + picked[1]] > 0)
            expected = float(logp(torch.tensor([picked])).detach())
            np.testing.assert_allclose(acted.logp[mine], expected, rtol=1e-5)
            assert mine.mean() == pytest.approx(np.exp(expected), abs=0.03)
        return
    if name == "ppo":
        law = model.policy.get_distribution(rows).distribution
        half, middle = (done.high - done.low) / 2, (done.high + done.low) / 2
        mean, std = law.mean.detach().numpy(), law.stddev.detach().numpy()
        expected = stats.norm((mean - middle) / half, std / half)
        drawn = acted.actions
    else:
        actor = model.policy.actor
        law = actor.action_dist.proba_distribution(*_sde(actor, rows)).distribution
        expected = stats.norm(law.mean.detach(), law.stddev.detach())
        drawn = np.arctanh(np.clip(acted.actions, -1 + 1e-7, 1 - 1e-7))
    quartiles = np.quantile(drawn, [0.25, 0.5, 0.75], axis=0)
    theirs = np.stack([expected.ppf(each)[0] for each in (0.25, 0.5, 0.75)])
    np.testing.assert_allclose(quartiles, np.clip(theirs, drawn.min(), drawn.max()), atol=0.1)


def _sde(actor: Any, rows: torch.Tensor) -> tuple[Any, Any, Any]:
    mean, log_std, more = actor.get_action_dist_params(rows)
    return mean, log_std, more["latent_sde"]


class Malicious:
    """Its pickle makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def infected(content: bytes, payload: bytes) -> bytes:
    """The data of a policy, every pickle in them replaced."""
    found = json.loads(content)
    for each in found.values():
        if isinstance(each, dict) and ":serialized:" in each:
            each[":serialized:"] = base64.b64encode(payload).decode()
    return json.dumps(found).encode()


def test_no_pickle_in_a_file_is_run(saved: dict[str, Path], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    payload = pickle.dumps(Malicious(ran))

    def change(member: str, content: bytes) -> bytes:
        return infected(content, payload) if member == "data" else content

    raw = np.zeros((3, 3), dtype=np.float32)
    acted = []
    for path in (saved["ppo"], rewritten(saved["ppo"], tmp_path / "bad.zip", change)):
        behaviour = StableBaselines(path, TORQUE, deterministic=True)
        behaviour.start(raw, np.random.default_rng(0))
        acted.append(behaviour.act(raw).actions)
    np.testing.assert_array_equal(*acted)
    weights = rewritten(saved["ppo"], tmp_path / "weights.zip", lambda *_: payload)
    (tmp_path / "normaliser.pkl").write_bytes(payload)
    torch.save({"action_net.weight": Malicious(ran)}, tmp_path / "weights.pth")

    def swap(member: str, content: bytes) -> bytes:
        return (tmp_path / "weights.pth").read_bytes() if member == "policy.pth" else content

    swapped = rewritten(saved["ppo"], tmp_path / "swapped.zip", swap)
    for path in (weights, swapped):
        with pytest.raises(UserError, match="not a policy saved"):
            StableBaselines(path, TORQUE)
    with pytest.raises(UserError, match="not a VecNormalize file"):
        read_moments(tmp_path / "normaliser.pkl")
    assert not ran.exists()
    with pytest.raises(UserError):  # what is trusted runs
        Trusted(tmp_path / "bad.zip", TORQUE)
    assert ran.exists()


def test_old_files_need_no_gym_and_no_stable_baselines(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    def change(member: str, content: bytes) -> bytes:
        if member != "data":
            return content
        pickled = pickle.dumps(1).replace(b"K\x01", b"cgym.spaces.box\nBox\n")
        return infected(content.replace(b"gymnasium.spaces", b"gym.spaces"), pickled)

    old = rewritten(saved["sac"], tmp_path / "old.zip", change)
    code = f"""
import sys
from pathlib import Path
sys.modules["stable_baselines3"] = sys.modules["gym"] = None
from gymnasium import spaces
from ablate.data.stable_baselines import StableBaselines, read_moments
print(StableBaselines(Path({str(old)!r}), spaces.Box(-2.0, 2.0, (1,))).observation_dim)
print(len(read_moments(Path({str(saved["normaliser"])!r})).mean))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["3", "3"], "")


def test_policies_that_are_code_are_left_to_trust_code(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    class Own(nn.Module):
        pass

    def of(**changes: str) -> Callable[[str, bytes], bytes]:
        def change(member: str, content: bytes) -> bytes:
            if member != "data":
                return content
            found = json.loads(content)
            found["policy_class"]["__module__"] = changes.get(
                "module", "stable_baselines3.common.policies"
            )
            found["policy_kwargs"]["activation_fn"] = changes.get("activation", str(nn.Tanh))
            return json.dumps(found).encode()

        return change

    for number, (change, message) in enumerate(
        [
            (of(module="my.policies"), r"its policy is of my\.policies, code"),
            (of(activation=str(Own)), r"its activation is Own; allowed: Tanh"),
        ]
    ):
        path = rewritten(saved["ppo"], tmp_path / f"{number}.zip", change)
        with pytest.raises(UserError, match=message + ".*--trust-code lets .* runs whatever code"):
            StableBaselines(path, TORQUE)
    model = sb3.PPO.load(saved["ppo"], device="cpu")
    raw = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
    behaviour = Trusted(saved["ppo"], TORQUE, deterministic=True)
    behaviour.start(raw, np.random.default_rng(0))
    np.testing.assert_allclose(
        2 * behaviour.act(raw).actions, model.predict(raw, deterministic=True)[0], atol=1e-6
    )


def test_a_policy_for_other_actions_is_refused(saved: dict[str, Path]) -> None:
    for name, space, message in (
        ("ppo", spaces.Box(-1.0, 1.0, (1,)), r"gives Box of 1 numbers, low -2, high 2; the environment takes Box"),
        ("ppo", spaces.Box(-2.0, 2.0, (2,)), "gives Box of 1 numbers"),
        ("cart", spaces.Box(-2.0, 2.0, (2,)), "gives Discrete of 2 numbers"),
        ("cart", spaces.MultiBinary(2), "gives Discrete of 2 numbers"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as refusal:
            StableBaselines(saved[name], space)
        assert "\n" not in str(refusal.value)


def test_observations_of_another_width_are_refused(saved: dict[str, Path]) -> None:
    behaviour = StableBaselines(saved["ppo"], TORQUE)
    with pytest.raises(UserError, match="reads observations of 3 numbers, the environment gives 4"):
        behaviour.start(np.zeros((1, 4)), np.random.default_rng(0))
    moments = StableBaselines(saved["sac"], TORQUE, saved["normaliser"])
    moments._moments = replace(moments._moments, mean=np.zeros(4))
    with pytest.raises(UserError, match="it is for observations of 4 numbers"):
        moments.start(np.zeros((1, 3)), np.random.default_rng(0))


def test_a_policy_of_several_choices_collects(tmp_path: Path) -> None:
    untrained(tmp_path / "x.zip", "choices")
    gymnasium.register(
        "Still-v0", lambda: Moving(SEEN, spaces.MultiDiscrete([3, 2])), max_episode_steps=5
    )
    try:
        for format in ("hdf5", "minari", "pickle"):
            out = tmp_path / f"{format}-v0"
            made = collect_with(f"sb3:{tmp_path / 'x.zip'}", "Still-v0", 20, out, format=format)
            assert made.actions.shape == (20, 5)
            found = files.inspect(out).trajectories
            np.testing.assert_array_equal(found.actions, made.actions)
    finally:
        del gymnasium.registry["Still-v0"]


class Moving(Still):
    """A reward a step, and an end by the time limit alone."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.observation_space.seed(seed)
        return super().reset()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, False, False, {}
