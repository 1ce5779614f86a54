"""What changes an id and what doesn't."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_samples import TEXT, changed, loaded, made_up_lab

from ablate.study import identity
from ablate.study.expand import Trial, cells, trials

HASHES = {"lab/mixed": "aa", "lab/plain": "bb"}


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


def one(folder: Path, text: str = TEXT) -> Trial:
    return trials(loaded(folder, text), HASHES)[0]


def turned(value: Any) -> Any:
    """The same with every mapping's keys in reverse."""
    if isinstance(value, dict):
        return {k: turned(value[k]) for k in reversed(list(value))}
    return value


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    trial = one(tmp_path)
    assert Trial(trial.study, trial.seed, turned(trial.config), trial.data_hash).id == trial.id


def test_a_trial_read_back_from_json_keeps_its_id(tmp_path: Path) -> None:
    trial = one(tmp_path)
    config = json.loads(json.dumps(trial.config))
    assert Trial(trial.study, trial.seed, config, trial.data_hash).id == trial.id
    assert len(trial.id) == 12


@pytest.mark.parametrize(
    "path", ["mixer", "context", "head", "train.updates", "evaluate.episodes", "model.layers"]
)
def test_every_level_and_setting_matters(tmp_path: Path, path: str) -> None:
    trial = one(tmp_path)
    config = copy.deepcopy(trial.config)
    inner, *last = path.split(".")
    if last:
        config[inner][last[0]] += 1
    else:
        config[inner] = {"mixer": "gru", "context": 5, "head": "mixture"}[path]
    assert Trial(trial.study, trial.seed, config, trial.data_hash).id != trial.id


def test_study_seed_data_and_code_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = one(tmp_path)
    ids = {
        trial.id,
        Trial("other", trial.seed, trial.config, trial.data_hash).id,
        Trial(trial.study, 1, trial.config, trial.data_hash).id,
        Trial(trial.study, trial.seed, trial.config, "cc").id,
    }
    monkeypatch.setattr(identity, "CODE_VERSION", identity.CODE_VERSION + 1)
    ids.add(one(tmp_path).id)
    assert len(ids) == 5


def test_a_plugin_s_version_matters_to_those_who_use_it(tmp_path: Path) -> None:
    before = {t.id: t for t in trials(loaded(tmp_path), HASHES)}
    with made_up_lab({"gru": "0123"}):
        after = {t.id: t for t in trials(loaded(tmp_path), HASHES)}
    assert {before[i].config["mixer"] for i in set(before) - set(after)} == {"gru"}
    assert "gru" not in {before[i].config["mixer"] for i in set(before) & set(after)}


def test_nothing_of_the_machine_is_hashed(tmp_path: Path) -> None:
    text = identity.canonical(cells(loaded(tmp_path))[0].config)
    for word in ("device", "worker", "cuda", "cpu", str(tmp_path)):
        assert word not in text
    assert one(tmp_path).id == one(tmp_path).id


def test_how_settings_are_written_does_not_matter(tmp_path: Path) -> None:
    plain = one(tmp_path, changed("{updates: 100}", "{updates: 100, learning_rate: 1e-3}"))
    dotted = one(tmp_path, changed("{updates: 100}", "{learning_rate: 0.001, updates: 100.0}"))
    assert plain.id == dotted.id == one(tmp_path).id


def test_the_study_hash_is_about_what_runs(tmp_path: Path) -> None:
    known = identity.study_hash(loaded(tmp_path))
    same = [
        changed("why: The question.", "why: Another."),
        changed("says: Memory helps.", "says: So."),
    ]
    other = [
        changed("seeds: 4", "seeds: 5"),
        changed("context: [1, 20]\n    condition: [none", "context: [1, 5]\n    condition: [none"),
    ]
    assert all(identity.study_hash(loaded(tmp_path, text)) == known for text in same)
    assert all(identity.study_hash(loaded(tmp_path, text)) != known for text in other)
    assert identity.study_hash(loaded(tmp_path, profile="quick")) != known


def test_the_hypotheses_hash_is_about_claims(tmp_path: Path) -> None:
    known = identity.hypotheses_hash(loaded(tmp_path))
    assert identity.hypotheses_hash(loaded(tmp_path, profile="quick")) == known
    same = [changed("says: Memory helps.", "says: So."), changed("seeds: 4", "seeds: 5")]
    other = [
        changed("threshold: 3", "threshold: 2"),
        changed("margin: 3", "margin: 4"),
        changed("margin: 3", "margin: 3\nalpha: 0.1"),
    ]
    assert all(identity.hypotheses_hash(loaded(tmp_path, text)) == known for text in same)
    assert all(identity.hypotheses_hash(loaded(tmp_path, text)) != known for text in other)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        identity.digest({"x": float("nan")})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=5))
def test_canonical_json_is_invertible_and_blind_to_order(value: dict[str, Any]) -> None:
    assert json.loads(identity.canonical(value)) == value
    assert identity.canonical(turned(value)) == identity.canonical(value)
