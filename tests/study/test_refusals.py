"""Wrong study files: one line with file, line, what is allowed and the nearest name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_samples import TEXT, changed, line_of, loaded, made_up_lab, refusal, written

from ablate.errors import UserError
from ablate.study.load import load


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


# old text, new text, text that the line number points at, fragments of the message
WRONG = {
    "misspelt level": (
        "mixer: [gru, mlp]",
        "mixer: [grue, mlp]",
        "[grue",
        ["'grue'", "attention, gru, mlp", "Did you mean 'gru'?"],
    ),
    "level that is not declared": (
        "context: [1, 20]\n    condition: [none",
        "context: [1, 7]\n    condition: [none",
        "[1, 7]",
        ["'7'", "1, 5, 20"],
    ),
    "unknown mixer": ("mlp]\n  context", "mlpp]\n  context", "mlpp]", ["'mlpp'"]),
    "unknown condition": ("time, policy-id]\n  h", "tine, policy-id]\n  h", "tine", ["'time'?"]),
    "unknown history": ("+actions, states]", "+actions, sates]", "sates", ["'states'?"]),
    "unknown factor": (
        "  head: [mse",
        "  depth: [2]\n  head: [mse",
        "depth",
        ["'depth'", "train.updates"],
    ),
    "unknown setting as factor": (
        "  head: [mse",
        "  train.update: [2]\n  head: [mse",
        "train.update",
        ["'train.updates'?"],
    ),
    "wrong value of a setting as factor": (
        "  head: [mse",
        "  train.clip: [0]\n  head: [mse",
        "train.clip",
        ["'0'", "greater than 0"],
    ),
    "setting that is also a factor": (
        "  head: [mse",
        "  train.updates: [5]\n  head: [mse",
        "train: {",
        ["remove it here"],
    ),
    "context that is no number": ("[1, 5, 20]", "[1, five, 20]", "five", ["'five'", "timesteps"]),
    "level twice": ("[1, 5, 20]", "[1, 5, 5]", "[1, 5, 5]", ["'5' stands twice"]),
    "factor without levels": ("[mse, mixture]", "[]", "head: []", ["has no levels"]),
    "missing factor": ("  context: [1, 5, 20]\n", "", "factors", ["'context' is missing"]),
    "unknown factor of a design": (
        "    condition: [none, time]",
        "    conditon: [none, time]",
        "conditon",
        ["'conditon'", "'condition'?"],
    ),
    "unknown data of a design": (
        "data: lab/mixed\n",
        "data: lab/mixd\n",
        "lab/mixd",
        ["'lab/mixd'", "'lab/mixed'?"],
    ),
    "design without data": (
        "    data: lab/mixed\n    mixer",
        "    mixer",
        "extra:",
        ["'extra' names no data", "core"],
    ),
    "empty level list": ("mixer: all", "mixer: []", "mixer: []", ["no level of mixer"]),
    "no designs": (
        TEXT[TEXT.index("designs:\n  core") : TEXT.index("model:")],
        "designs: {}\n",
        "designs: {}",
        ["designs", "at least 1"],
    ),
    "data that nobody has": (
        "data: [lab/mixed, lab/plain]\ndesigns:\n  core:\n    why: The question.\n",
        "data: [lab/plane, lab/mixed, lab/plain]\ndesigns:\n  odd: {data: lab/plane}\n  core:\n",
        "data: [",
        ["'lab/plane'", "'lab/plain'?"],
    ),
    "data set twice": (
        "data: [lab/mixed, lab/plain]\nd",
        "data: [lab/mixed, lab/mixed, lab/plain]\nd",
        "data: [",
        ["'lab/mixed' stands twice"],
    ),
    "no seed": ("seeds: 4", "seeds: 0", "seeds: 0", ["seeds", "'0'", "1"]),
    "seeds in words": ("seeds: 4", "seeds: many", "seeds: many", ["seeds", "'many'"]),
    "alpha above one": ("margin: 3", "alpha: 5", "alpha: 5", ["alpha", "less than 1"]),
    "unknown part": ("margin: 3", "margins: 3", "margins", ["'margins'", "'margin'?"]),
    "unknown setting": ("{updates: 100}", "{update: 100}", "{update:", ["'update'", "'updates'?"]),
    "unknown choice": (
        "{updates: 100}",
        "{schedule: cosin}",
        "{schedule",
        ["train.schedule", "'cosin'", "'cosine' or 'constant'"],
    ),
    "missing question": ("question: Does memory help?\n", "", "study:", ["'question' is missing"]),
    "bad name": ("study: small", "study: a b", "study:", ["study", "'a b'"]),
    "policy id without ids": (
        "    data: lab/mixed\n    mixer",
        "    data: lab/plain\n    mixer",
        "condition: [time, policy-id]",
        ["'policy-id'", "'lab/plain'", "Allowed here: none, time"],
    ),
    "loss at hidden positions": (
        "    condition: [time, policy-id]\nmodel: {parameters: 1000}\ntrain: {",
        "    history: states\nmodel: {parameters: 1000}\ntrain: {loss: all, ",
        "train: {",
        ["train.loss 'all'", "'states'", "Allowed here: last"],
    ),
    "key twice": ("seeds: 4", "seeds: 4\nseeds: 5", "seeds: 5", ["stands twice", "first in line"]),
    "key twice, deep": (
        "    mixer: all\n",
        "    mixer: all\n    mixer: gru\n",
        "mixer: gru\n",
        ["'mixer' stands twice"],
    ),
    "broken YAML": ("[1, 5, 20]", "[1, 5, 20", "condition:", ["not valid YAML"]),
    "profile that changes claims": (
        "    seeds: 2",
        "    margin: 2",
        "margin: 2",
        ["'margin'", "seeds, designs"],
    ),
    "profile with unknown level": (
        "core: {mixer: gru}",
        "core: {mixer: gnu}",
        "gnu",
        ["'gnu'", "'gru'?"],
    ),
    "null of an unknown design": ("extra: null", "extr: null", "extr:", ["'extr'", "'extra'?"]),
    "null of a setting": (
        "    seeds: 2",
        "    seeds: null",
        "seeds: null",
        ["only drops a design"],
    ),
    "misspelt level in a contrast": (
        "context[20] - context[1]",
        "context[20] - context[2]",
        "contrast: context",
        ["position 23", "'2'", "1, 5, 20"],
    ),
    "misspelt factor in a contrast": (
        "context[20] - context[1]",
        "contxt[20] - context[1]",
        "contrast: contxt",
        ["position 1:", "'context'?"],
    ),
    "broken contrast": (
        "context[20] - context[1]",
        "context[20] - context 1",
        "contrast: context",
        ["position 23", "expected '['"],
    ),
    "pairs of no factor": ("pair of mixer", "pair of mixers", "pair of mixers", ["'mixer'?"]),
    "misspelt level in where": (
        "condition: time}\n    test: s",
        "condition: tim}\n    test: s",
        "condition: tim}",
        ["'tim'", "'time'?"],
    ),
    "misspelt factor in where": (
        "where: {data: lab/mixed,",
        "where: {date: lab/mixed,",
        "date:",
        ["'date'", "'data'?"],
    ),
    "where and contrast clash": (
        "where: {data: lab/mixed,",
        "where: {context: 20,",
        "context: 20,",
        ["'memory' already says"],
    ),
    "each and contrast clash": (
        "    threshold: 3",
        "    each: context",
        "each: context",
        ["already varies context"],
    ),
    "each of no factor": ("    threshold: 3", "    each: mixr", "each: mixr", ["'mixer'?"]),
    "unknown metric": (
        "    threshold: 3",
        "    metric: scor",
        "metric: scor",
        ["'rollout.score'?"],
    ),
    "unknown test": ("test: superiority", "test: superior", "test: superior", ["'superiority'"]),
    "threshold of an equivalence": (
        "test: equivalence",
        "test: equivalence\n    threshold: 2",
        "threshold: 2",
        ["belongs to the test superiority"],
    ),
    "around of a superiority": (
        "    threshold: 3",
        "    around: 3",
        "around: 3",
        ["belongs to the tests equivalence"],
    ),
    "equivalence without margin": (
        "test: equivalence",
        "test: equivalence\n    metric: return_std",
        "id: agree",
        ["give its own margin"],
    ),
    "hypothesis twice": (
        "id: agree",
        "id: memory",
        "id: memory\n    says: Without",
        ["stands twice"],
    ),
    "hypothesis without says": ("    says: Heads differ.\n", "", "id: heads", ["says' is missing"]),
    "claim that no profile tests": (
        "where: {data: lab/plain}",
        "where: {data: lab/mixed}",
        "contrast: head",
        ["'heads'", "no profile"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_with_their_line(tmp_path: Path, case: str) -> None:
    old, new, at, fragments = WRONG[case]
    text = changed(old, new)
    message = refusal(tmp_path, text)
    start = text.rindex(new) if new in text and at in new else 0
    expected = line_of(text[start:], at) + text[:start].count("\n")
    assert message.startswith(f"small.yaml:{expected}: "), message
    for fragment in fragments:
        assert fragment in message, message


def test_a_missing_file_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UserError, match=r"no study file.*smal\.yaml.*Did you mean '.*small\.yaml'"):
        load(tmp_path / "smal.yaml")
    with pytest.raises(UserError, match="there is no such study file"):
        load(tmp_path / "nowhere" / "small.yaml")


def test_a_file_that_is_no_mapping_or_no_text_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "- a\n- b\n").startswith("small.yaml:1: a study file is a mapping")
    assert refusal(tmp_path, "").startswith("small.yaml:1:")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        load(tmp_path / "bytes.yaml")


def test_an_unknown_profile_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, TEXT, "quik")
    assert message == (
        "small.yaml: the profile: 'quik' is not known; allowed: standard, quick, big. "
        "Did you mean 'quick'?"
    )


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("train.updates", ["expected KEY=VALUE"]),
        ("tran.updates=3", ["'tran'", "'train'?"]),
        ("train.update=3", ["'update'", "'updates'?"]),
        ("train.updates=-3", ["train.updates", "'-3'", "greater than 0"]),
        ("seeds=0", ["seeds", "1"]),
        (
            "measure.rollout.target=q90",
            ["measure.rollout.target: found 'q90'", "percentile", "a number"],
        ),
        ("measure.rolout.target=1", ["'rolout'", "'rollout'?"]),
        ("measure.rollout.targt=1", ["has no option", "'targt'", "'target'?"]),
        ("streams=a b", ["streams", "'a b'"]),
        ("seeds.first=1", ["holds no values"]),
        ("train.updates=[", ["not a YAML value"]),
    ],
)
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, fragments: list[str]) -> None:
    message = refusal(tmp_path, TEXT, overrides=[override])
    assert message.startswith(f"--set {override}: "), message
    for fragment in fragments:
        assert fragment in message, message


def test_data_of_other_profiles_is_not_looked_up(tmp_path: Path) -> None:
    text = changed("data: [lab/mixed, lab/plain]\nd", "data: [lab/mixed, lab/plain, away/far]\nd")
    text = text.replace(
        "heads: {data: lab/plain,", "far: {data: away/far},\n      heads: {data: lab/plain,"
    )
    text = text.replace("far: {data: away/far},", "far: {data: away/far}")
    assert loaded(tmp_path, text).profile == "standard"
    assert "'away/far'" in refusal(tmp_path, text, "big")
