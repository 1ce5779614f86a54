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

from ablate import registry
from ablate.config import fit_part
from ablate.study import identity
from ablate.study.expand import Fit, Trial, cells, trials

HASHES = {"lab/mixed": "aa", "lab/plain": "bb"}


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


def one(folder: Path, text: str = TEXT) -> Trial:
    return trials(loaded(folder, text), HASHES)[0]


def again(trial: Trial, config: dict[str, Any] | None = None, **other: Any) -> Trial:
    """The same trial, made anew with another configuration, or with other streams, seed or data."""
    config = trial.config if config is None else config
    fit = trial.fit
    named = {"streams": fit.streams, "seed": fit.seed, "data_hash": fit.data_hash} | other
    return Trial(Fit(config=fit_part(config), **named), config, trial.budget)


def turned(value: Any) -> Any:
    """The same with every mapping's keys in reverse."""
    if isinstance(value, dict):
        return {k: turned(value[k]) for k in reversed(list(value))}
    return value


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    trial = one(tmp_path)
    assert again(trial, turned(trial.config)).id == trial.id


def test_a_trial_read_back_from_json_keeps_its_id(tmp_path: Path) -> None:
    trial = one(tmp_path)
    found = again(trial, json.loads(json.dumps(trial.config)))
    assert (found.id, found.fit.id, found.rows) == (trial.id, trial.fit.id, trial.rows)
    assert all(len(name) == 12 for name in (trial.id, trial.fit.id, *trial.rows.values()))


def changed_at(trial: Trial, path: str, value: Any) -> Trial:
    config = copy.deepcopy(trial.config)
    inner, (*way, last) = config, path.split(".")
    for name in way:
        inner = inner[name]
    assert inner[last] != value
    inner[last] = value
    return again(trial, config)


@pytest.mark.parametrize(
    ("path", "value"),
    [("mixer", "gru"), ("context", 5), ("head", "mixture"), ("train.updates", 101), ("model.layers", 3)],
)  # fmt: skip
def test_every_level_and_setting_of_training_matters(tmp_path: Path, path: str, value: Any) -> None:
    trial = one(tmp_path)
    other = changed_at(trial, path, value)
    assert other.fit.id != trial.fit.id
    assert set(other.rows.values()).isdisjoint(trial.rows.values())


def test_an_option_of_a_measurement_matters_to_its_own_rows_alone(tmp_path: Path) -> None:
    trial = one(tmp_path)
    other = changed_at(trial, "measure.rollout.episodes", 51)
    assert other.id != trial.id
    assert other.fit.id == trial.fit.id
    assert {name for name in trial.rows if trial.rows[name] != other.rows[name]} == {"rollout"}


def test_checkpoints_and_criteria_matter_to_no_fit(tmp_path: Path) -> None:
    known = trials(loaded(tmp_path), HASHES)
    kept = trials(
        loaded(
            tmp_path,
            changed(
                "{updates: 100}", "{updates: 100, checkpoints: [10], converged: {loss_fall: 1%}}"
            ),
        ),
        HASHES,
    )
    assert {t.fit.id for t in kept} == {t.fit.id for t in known}
    assert {t.id for t in kept if t.budget == 100} == {t.id for t in known}
    assert len(kept) == 2 * len(known)


def test_streams_seed_data_and_code_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = one(tmp_path)
    assert trial.fit.streams == "small"
    made = [
        trial,
        *(again(trial, **{n: v}) for n, v in (("streams", "s"), ("seed", 1), ("data_hash", "cc"))),
    ]
    monkeypatch.setattr(identity, "FIT_VERSION", identity.FIT_VERSION + 1)
    made.append(one(tmp_path))
    assert len({t.id for t in made}) == len({t.fit.id for t in made}) == 5


@pytest.mark.parametrize(
    ("part", "uses"),
    [
        ("gru", lambda config: config["mixer"] == "gru"),
        ("mixture", lambda config: config["head"] == "mixture"),
        ("lab", lambda config: True),
        ("bc", lambda config: True),
    ],
)
def test_a_part_s_version_matters_to_the_fits_that_use_it(
    tmp_path: Path, part: str, uses: Any
) -> None:
    before = {t.fit.id: t for t in trials(loaded(tmp_path, profile="big"), HASHES)}
    with made_up_lab({part: "0123"}):
        after = {t.fit.id for t in trials(loaded(tmp_path, profile="big"), HASHES)}
    assert before.keys() - after == {i for i, t in before.items() if uses(t.config)}


def test_layouts_and_parts_of_a_condition_have_versions() -> None:
    for kind in ("layout", "condition", "history"):
        registry.register(kind, "mine", f"{kind} 1")(object())
    plain = {"data": "lab/mixed", "mixer": "gru", "layout": "step", "condition": "time"}
    assert identity.part_versions(plain) == {}
    own = plain | {"layout": "mine", "condition": "time+mine", "history": "mine"}
    assert identity.part_versions(own) == {
        "layout mine": "layout 1",
        "condition mine": "condition 1",
        "history mine": "history 1",
    }
    assert identity.part_versions(plain | {"layout": "chunk-4"}) == {}


def test_a_measurement_s_version_matters_to_its_own_rows(tmp_path: Path) -> None:
    before = one(tmp_path)
    with made_up_lab({"held-out": "0123"}):
        after = one(tmp_path)
    assert after.fit.id == before.fit.id
    assert {name for name in before.rows if before.rows[name] != after.rows[name]} == {"held-out"}


def test_nothing_of_the_machine_is_hashed(tmp_path: Path) -> None:
    text = identity.canonical(cells(loaded(tmp_path))[0].config)
    for word in ("device", "worker", "cuda", "cpu", str(tmp_path)):
        assert word not in text
    assert one(tmp_path).id == one(tmp_path).id


def test_how_settings_are_written_does_not_matter(tmp_path: Path) -> None:
    plain = one(tmp_path, changed("{updates: 100}", "{updates: 100, learning_rate: 1e-3}"))
    dotted = one(tmp_path, changed("{updates: 100}", "{learning_rate: 0.001, updates: 100.0}"))
    assert plain.id == dotted.id == one(tmp_path).id


def test_other_streams_are_another_run_of_the_same_claims(tmp_path: Path) -> None:
    plain, drawn = loaded(tmp_path), loaded(tmp_path, overrides=["streams=second"])
    assert (plain.streams, drawn.streams) == ("small", "second")
    assert loaded(tmp_path, changed("seeds: 4", "streams: second\nseeds: 4")).streams == "second"
    assert identity.hypotheses_hash(drawn) == identity.hypotheses_hash(plain)
    ids = [{t.fit.id for t in trials(each, HASHES)} for each in (plain, drawn)]
    assert ids[0].isdisjoint(ids[1])


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
