"""What a hypothesis may say of estimand and trend, and that old files keep their hash."""

from __future__ import annotations

import pandas as pd
import pytest
from pydantic import ValidationError
from study_samples import changed, loaded, made_up_lab, refusal

from ablate.study import identity
from ablate.study.hypotheses import Hypothesis, claims, coverage

PLAIN = {"id": "h", "says": "So.", "contrast": "context[20] - context[1]", "test": "difference"}


@pytest.fixture(autouse=True)
def lab():
    with made_up_lab():
        yield


def test_the_default_isnt_written_and_so_doesnt_change_the_hash(tmp_path):
    plain = changed("where: {data: lab/mixed, condition: time}", "where: {condition: time}")
    spoken, other = (
        plain.replace("    threshold: 3\n", f"    threshold: 3\n    estimand: {name}\n")
        for name in ("fixed", "population")
    )
    hashes = [identity.hypotheses_hash(loaded(tmp_path, text)) for text in (plain, spoken, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert "estimand" not in Hypothesis(**PLAIN).model_dump(mode="json")
    written = Hypothesis(**PLAIN, estimand="population").model_dump(mode="json")
    assert Hypothesis(**written).estimand == written["estimand"] == "population"
    assert Hypothesis(**Hypothesis(**PLAIN).model_dump()) == Hypothesis(**PLAIN)


def test_the_hash_of_a_known_file_stays(tmp_path):
    """A literal, since results that were registered under it depend on it."""
    assert identity.hypotheses_hash(loaded(tmp_path)) == "b45a38e20072"


def test_one_seed_is_enough_where_data_sets_are_the_sample():
    levels = {"context": [1, 20], "mixer": ["gru", "mlp"]}
    (fixed,) = claims(Hypothesis(**PLAIN), levels)
    (new,) = claims(Hypothesis(**PLAIN, estimand="population"), levels)
    assert (fixed.replicates, new.replicates) == (2, 1)
    each = claims(Hypothesis(**PLAIN, estimand="population", each="mixer"), levels)
    assert [c.replicates for c in each] == [1, 1]


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ({"estimand": "both"}, "'fixed' or 'population'"),
        ({"estimand": "population", "contrast": "data[a] - data[b]"}, "asks about new data sets"),
        ({"estimand": "population", "contrast": "each pair of data"}, "asks about new data sets"),
        ({"estimand": "population", "each": "data"}, "asks about new data sets"),
        ({"test": "trend"}, "needs a contrast such as trend"),
        ({"test": "trend", "contrast": "each pair of mixer"}, "needs a contrast such as trend"),
        ({"test": "trend", "contrast": "-trend(context[1, 20])"}, "needs a contrast such as"),
        (
            {"test": "trend", "contrast": "trend(context[1, 20])", "threshold": 1.0},
            "'threshold' and 'around' don't belong",
        ),
        (
            {"test": "trend", "contrast": "trend(context[1, 20])", "around": 1.0},
            "'threshold' and 'around' don't belong",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(rest, words):
    with pytest.raises(ValidationError, match=words):
        Hypothesis(**{**PLAIN, **rest})


def test_a_trend_in_a_study_file(tmp_path):
    text = changed("contrast: head[mixture] - head[mse]", "contrast: trend(context[1, 20])")
    text = text.replace("    test: difference\n", "    test: trend\n")
    assert loaded(tmp_path, text).hypotheses[2].test == "trend"
    wrong = text.replace("trend(context[1, 20])", "context[20] - context[1]")
    message = refusal(tmp_path, wrong)
    assert message.startswith("small.yaml:")
    assert "needs a contrast such as trend(context[1, 5, 20]), found 'context[20]" in message
    unknown = text.replace("trend(context[1, 20])", "trend(context[1, 7])")
    assert "the context: '7' is not known" in refusal(tmp_path, unknown)


def test_new_data_sets_need_two_to_be_covered():
    cells = pd.DataFrame({"data": ["a", "a", "b", "b"], "context": [1, 20] * 2})
    found = coverage(Hypothesis(**PLAIN, estimand="population"), {"context": [1, 20]}, cells)
    assert found.tested
    one = coverage(Hypothesis(**PLAIN, estimand="population"), {"context": [1, 20]}, cells[:2])
    assert one.words == "not tested at this profile"
    assert coverage(Hypothesis(**PLAIN), {"context": [1, 20]}, cells[:2]).tested


def test_a_file_whose_profiles_have_one_data_set_for_it_is_refused(tmp_path):
    text = changed("    threshold: 3\n", "    threshold: 3\n    estimand: population\n")
    assert "no profile has a design with the cells" in refusal(tmp_path, text)
