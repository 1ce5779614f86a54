"""Each hypothesis is registered by itself, and so are the seeds: what came later is exploratory, the rest is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_samples import TEXT, changed, loaded, made_up_lab

from ablate.study.identity import study_hash
from ablate.study.registration import Declared, declared, entered, standing

NEW = """\
  - id: added
    says: Mixers differ.
    contrast: mixer[gru] - mixer[mlp]
    where: {data: lab/mixed, context: 20, condition: time}
    test: difference
"""


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


def hashes(folder: Path, text: str, **options: str) -> dict[str, str]:
    return dict(declared(loaded(folder, text, **options)).hypotheses)


def test_an_added_hypothesis_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    first = declared(loaded(tmp_path))
    kept = entered({}, first, 0, "monday")
    later = declared(loaded(tmp_path, TEXT + NEW))
    assert standing(kept, later).late == {"added": "not registered in this form before the runs"}
    kept = entered(kept, later, 12, "tuesday")
    found = standing(kept, later)
    assert found.late == {"added": "registered when 12 results were there, tuesday"}
    assert found.before("memory")
    assert not found.before("added")
    # What was added and taken away again, or renamed and reworded, is what it was.
    assert not standing(kept, first).late
    assert not standing(kept, declared(loaded(tmp_path, changed("id: agree", "id: accord")))).late


def test_a_hypothesis_added_before_any_result_is_confirmatory(tmp_path: Path) -> None:
    kept = entered({}, declared(loaded(tmp_path)), 0, "monday")
    later = declared(loaded(tmp_path, TEXT + NEW))
    assert not standing(entered(kept, later, 0, "tuesday"), later).late


@pytest.mark.parametrize(
    ("old", "new", "late"),
    [
        ("    threshold: 3\n", "    threshold: 4\n", {"memory"}),
        ("    primary: true\n", "", {"memory"}),
        ("margin: 3", "margin: 4", {"memory", "agree", "heads"}),
        ("    threshold: 3\n", "    threshold: 3\n    metric: action_error\n", {"memory"}),
        ("where: {data: lab/mixed, condition: time}", "where: {condition: time}", {"memory"}),
        ("train: {updates: 100}", "train: {updates: 101}", {"memory", "agree", "heads"}),
        ("seeds: 4", "measure: {rollout: {episodes: 7}, held-out: {}}\nseeds: 4", {"memory", "agree", "heads"}),
        # What a verdict doesn't rest on.
        ("says: Memory helps.", "says: Memory does help.", set()),
        ("question: Does", "question: Perhaps does", set()),
        ("train: {updates: 100}", "train: {updates: 100, checkpoints: [5]}", set()),
    ],
)  # fmt: skip
def test_a_hash_is_of_what_a_verdict_rests_on(
    tmp_path: Path, old: str, new: str, late: set[str]
) -> None:
    kept = entered({}, declared(loaded(tmp_path, profile="big")), 0, "monday")
    now = declared(loaded(tmp_path, changed(old, new), profile="big"))
    assert set(standing(kept, now).late) == late


def test_seeds_raised_after_results_are_noticed() -> None:
    kept = entered({}, Declared({"a": "x"}, 4), 0, "monday")
    kept = entered(kept, Declared({"a": "x"}, 5), 8, "tuesday")
    assert not standing(kept, Declared({"a": "x"}, 4)).every
    found = standing(kept, Declared({"a": "x"}, 5))
    assert found.every == (
        "the seeds were raised from 4 to 5 when 8 results were there (tuesday), and `sequential` had declared no such"
        " look"
    )
    assert not found.before("a")


def test_seeds_that_were_changed_before_any_result_are_those(tmp_path: Path) -> None:
    kept = entered({}, Declared({}, 4), 0, "monday")
    kept = entered(kept, Declared({}, 6), 0, "tuesday")
    assert not standing(kept, Declared({}, 6)).every
    assert "6 seeds were registered" in standing(kept, Declared({}, 3)).every


def test_declared_looks_may_add_seeds() -> None:
    looks = (2, 4, 6)
    kept = entered({}, Declared({}, 2, looks), 0, "monday")
    for seeds in (4, 6):
        now = Declared({}, seeds, looks)
        kept = entered(kept, now, 3, "tuesday")
        assert not standing(kept, now).every
    late = entered(entered({}, Declared({}, 2), 0, "m"), Declared({}, 4, looks), 5, "t")
    assert "raised from 2 to 4" in standing(late, Declared({}, 4, looks)).every


def test_a_study_that_says_so_is_exploratory_whatever_was_registered(tmp_path: Path) -> None:
    kept = entered({}, declared(loaded(tmp_path)), 0, "monday")
    assert not standing(kept, declared(loaded(tmp_path))).every
    said = TEXT + "exploratory: The rule\n  was chosen on these runs.\n"
    now = declared(loaded(tmp_path, said))
    found = standing(kept, now)
    assert found.every == "The rule was chosen on these runs"
    assert not found.late
    assert not any(found.before(name) for name in now.hypotheses)
    assert study_hash(loaded(tmp_path, said)) == study_hash(loaded(tmp_path))
