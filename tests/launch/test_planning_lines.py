"""What `plan` says of tokens and of what a search sees, and contexts given in tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.data import catalogue
from ablate.data.catalogue import Anchors, DataSet
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.launch.planning import describe, sights, tokens
from ablate.launch.standing import describe as standing
from ablate.models import match
from ablate.models.match import given_width
from ablate.study.expand import cells
from ablate.study.foreign import is_foreign
from ablate.study.load import load
from ablate.study.source import read
from ablate.track import kept, seal

SHIPPED = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
STUDY = Path(__file__).parents[2] / "studies" / "planning.yaml"
TEXT = """
study: lines
question: How many timesteps?
factors:
  mixer: [gru]
  layout: [step, modality]
  context: ["12 tokens", 3]
data: [lq-mix/single]
designs: {all: {data: all, mixer: all, layout: all, context: all}}
hypotheses:
  - {id: longer, says: More is better., contrast: "context[12 tokens] - context[3]", test: superiority}
"""


def test_a_context_in_tokens_holds_what_the_layout_lets_it(tmp_path: Path) -> None:
    path = tmp_path / "lines.yaml"
    path.write_text(TEXT)
    found = {
        (cell.config["layout"], cell.config["context"]): cell.config["timesteps"]
        for cell in cells(load(path, None, []))
    }
    # A modality each for the action before and the observation.
    assert found[("step", "12 tokens")] == 12
    assert found[("modality", "12 tokens")] == 6
    assert found[("step", 3)] == 0
    path.write_text(TEXT.replace("12 tokens", "1 tokens"))
    with pytest.raises(UserError, match="takes 2 tokens in the layout 'modality'"):
        cells(load(path, None, []))


def test_tokens_a_timestep_are_those_of_the_joint_model() -> None:
    lines = "\n".join(tokens(cells(load(STUDY, None, []))))
    # N + M + 2 = 8 tokens a timestep: 512 tokens hold 64 timesteps.
    assert "N=4, M=2: lq-mix/episode" in lines
    assert "dimension           8         64        512      2,048" in lines


def test_a_search_as_released_loses_sight_of_what_was_executed() -> None:
    lines = sights(cells(load(STUDY, None, [])))
    assert lines[-1].endswith("reference, context 3, horizon 3: 2 1 0")


def test_the_sizes_of_a_twin_are_told_without_its_data(cache: Path) -> None:
    for name in (
        *("tmaze/passive-3", "lq-mix/single", "lq-mix/single@mask-velocity"),
        *("lq-mix/single@noise-0.1", "pointmaze/umaze-v1@mask-velocity"),
    ):
        if not name.startswith("pointmaze"):
            data = catalogue.load(name, cache).train
            assert catalogue.dimensions(name) == (data.observations.shape[1], data.actions.shape[1])
    full, masked = (
        catalogue.dimensions(f"pointmaze/umaze-v1{twin}") for twin in ("", "@mask-velocity")
    )
    assert masked == (full[0] - 2, full[1])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data sets of the right sizes in place of those that take minutes to make; files of D4RL aren't there."""
    real, seen = catalogue.load, {}

    def made(name: str, cache: Path, reading: object = None) -> Any:
        if name.startswith("d4rl/"):
            return real(name, cache)
        if name not in seen:
            observation, action = catalogue.dimensions(name)
            base = catalogue.spec(name.partition("@")[0])
            rng, ends = np.random.default_rng(0), np.zeros(40, dtype=bool)
            ends[[19, 39]] = True
            some = Trajectories(
                name=name,
                observations=rng.standard_normal((40, observation)).astype(np.float32),
                actions=rng.uniform(-1, 1, (40, action)).astype(np.float32),
                rewards=rng.standard_normal(40).astype(np.float32),
                terminations=np.zeros(40, dtype=bool),
                truncations=ends,
                episode_starts=np.array([0, 20, 40]),
            )
            seen[name] = DataSet(base, some, some, Anchors(0.0, 1.0, "made up"))
        return seen[name]

    monkeypatch.setattr(catalogue, "load", made)
    # Matching hundreds of widths is what takes long; it has tests of its own.
    monkeypatch.setattr(match, "solve_width", lambda spec, *_: given_width(spec.at(8)))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))


def shipped() -> list[Any]:
    """Every study about runs of ours, at each of its profiles."""
    found = [(path, read(path).tree) for path in SHIPPED if not is_foreign(path)]
    return [
        pytest.param(path, profile, id=f"{path.stem}-{profile}")
        for path, tree in found
        for profile in dict.fromkeys(("standard", *(tree.get("profiles") or {})))
    ]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("path", "profile"), shipped())
def test_every_shipped_study_can_be_planned(path: Path, profile: str, tmp_path: Path) -> None:
    study = load(path, profile)
    text = describe(study, tmp_path, 2)
    assert text.startswith(f"{study.study}, profile {profile}\n")
    assert f"{len(cells(study))} cells x {study.seeds} seeds" in text
    missing = [line for line in text.splitlines() if line.startswith("Not there yet: ")]
    d4rl = {cell.data for cell in cells(study) if cell.data.startswith("d4rl/")}
    assert len(missing) == len(d4rl)
    assert all(hypothesis.says in text for hypothesis in study.hypotheses)


@pytest.mark.usefixtures("stand_in")
def test_a_plan_counts_fits_apart_from_what_is_measured_of_them(tmp_path: Path) -> None:
    """One model for both ways of decoding; without measurement options as factors, one each."""
    study = load(STUDY.with_name("planning_mixed.yaml"))
    assert "2 cells x 5 seeds: 5 fits to train, 15 measurements, 10 trials" in describe(
        study, tmp_path, 2
    )


def test_status_has_totals_before_any_run(tmp_path: Path) -> None:
    path = tmp_path / "lines.yaml"
    path.write_text(TEXT)
    study = load(path, None, ["seeds=3"])
    count = 3 * len(cells(study))
    told = standing(study, tmp_path / "results").text()
    assert told == f"no runs yet: 0 of {count} fits trained, 0 of {count} trials completed"


def test_the_plugins_of_the_last_run_are_known(tmp_path: Path) -> None:
    assert kept.plugins(tmp_path, "lines") == []
    (tmp_path / "lines/quick").mkdir(parents=True)
    note = dict.fromkeys(kept.ASKED) | {"plugins": ["mine.py"]}
    (tmp_path / "lines/quick/last.json").write_text(json.dumps(seal.sign(note)))
    assert kept.plugins(tmp_path, "lines") == ["mine.py"]
    (tmp_path / "lines/quick/last.json").write_text("{")
    assert kept.plugins(tmp_path, "lines") == []
