"""Levels that change nothing are refused, with file and line: an ablation of nothing is no finding."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ablate import registry
from ablate.errors import UserError
from ablate.measure.acting import ActingOptions
from ablate.measure.base import Measurement
from ablate.study.expand import cells
from ablate.study.load import load
from ablate.systems import prepare

TEXT = """\
study: inert
question: Does it matter?
factors:
  mixer: [gru]
  context: [3]
{factors}
data: [tmaze/passive-3]
designs:
  all: {{data: all, {design}: all}}
{rest}
"""


def study(folder: Path, factor: str, levels: str, rest: str = "", fixed: str = "") -> Path:
    """A study in which one factor varies. fixed: factors of one level."""
    named = "".join(f"  {line}\n" for line in (fixed, f"{factor}: {levels}") if line)
    base = TEXT.format(factors=named.rstrip(), design=factor, rest=rest)
    for name in ("mixer", "context"):
        if factor == name or fixed.startswith(f"{name}:"):
            base = re.sub(rf"  {name}: \[(gru|3)\]\n", "", base, count=1)
    path = folder / "inert.yaml"
    path.write_text(base, encoding="utf-8")
    return path


JOINT = "algorithm: [joint]\n  head: [mse]\n  layout: [dimension]"
PLAN = "measure: {plan: {episodes: 1}}\ntrain: {loss: all}\nmodel: {width: 8}"
INERT = {
    "a parameter count beside a given width": (
        "model.parameters", "[1000, 4000]", "model: {width: 16}", "",
    ),
    "the tolerance of a match that isn't made": (
        "model.tolerance", "[0.01, 0.1]", "model: {width: 16}", "",
    ),
    "a target that nobody is told": (
        "measure.rollout.target", "[p10, p90]", "measure: {rollout: {}}", "",
    ),
    "how a target falls that nobody is told": (
        "measure.rollout.decrement", "[true, false]", "measure: {rollout: {}}", "condition: [time]",
    ),
    "an option of a measurement that isn't made": (
        "measure.rollout.episodes", "[1, 2]", "measure: {held-out: {}}", "",
    ),
    "a setting of an algorithm that isn't used": ("settings.expectile", "[0.7, 0.9]", "", ""),
    "heads of a mixer that attends to nothing": ("model.heads", "[1, 2]", "", ""),
    "positions of a mixer that counts by itself": (
        "model.positions", "[learned, rotary]", "", "mixer: [lstm]",
    ),
    "a window of a mixer that has none": ("model.window", "[0, 2]", "", "mixer: [mlp]"),
    "what is shown of the past to a model of whole trajectories": (
        "history", "[states+actions, states+actions+rewards]", PLAN, JOINT,
    ),
    "the value of a search for likelihood": (
        "measure.plan.discount", "[0.9, 0.99]",
        PLAN.replace("episodes: 1", "episodes: 1, objective: likelihood"), JOINT,
    ),
    "the beam of a decoding that doesn't search": (
        "measure.plan.beam", "[4, 8]",
        PLAN.replace("episodes: 1", "episodes: 1, objective: direct"), JOINT,
    ),
    "the standard deviation of a table that isn't there": ("model.timestep_std", "[0.02, 1.0]", "", ""),
    "what a share of all of the data is of": ("train.keep_by", "[timesteps, episodes]", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", INERT)
def test_what_changes_nothing_is_refused_with_its_line(case: str, tmp_path: Path) -> None:
    factor, levels, rest, fixed = INERT[case]
    path = study(tmp_path, factor, levels, rest, fixed)
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    lines = path.read_text().splitlines()
    place = re.match(rf"{re.escape(str(path))}:(\d+): ", message)
    assert place, message
    assert factor.split(".")[-1] in lines[int(place[1]) - 1], message
    assert "\n" not in message
    assert factor in message


CHANGES = {
    "the same target where a return is asked for": (
        "measure.rollout.target", "[p10, p90]", "measure: {rollout: {}}", "condition: [return-to-go]",
    ),
    "episodes of a measurement that is made": ("measure.rollout.episodes", "[1, 2]", "", ""),
    "a parameter count that a width is solved for": ("model.parameters", "[1000, 4000]", "", ""),
    "heads of attention": ("model.heads", "[1, 2]", "model: {width: 16}", "mixer: [attention]"),
    "a beam": ("measure.plan.beam", "[4, 8]", PLAN, JOINT),
    "the discount of a search for return": ("measure.plan.discount", "[0.9, 0.99]", PLAN, JOINT),
    "the mixer of a model of whole trajectories": ("mixer", "[attention, gru]", PLAN, JOINT),
    "what a model of whole trajectories is told": ("condition", "[none, time]", PLAN, JOINT),
    "the past": ("history", "[states+actions, states]", "", ""),
    "the data's best": ("train.keep", "[0.5, 1.0]", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_what_changes_something_is_not(case: str, tmp_path: Path) -> None:
    factor, levels, rest, fixed = CHANGES[case]
    assert len(load(study(tmp_path, factor, levels, rest, fixed)).factors[factor]) == 2


@pytest.mark.parametrize(
    ("factor", "levels"),
    [("mixer", "[attention, gru]"), ("condition", "[none, time]"), ("condition", "[none, return-to-go]")],
)  # fmt: skip
def test_what_a_joint_model_reads_makes_another_model(
    factor: str, levels: str, tmp_path: Path, cache: Path
) -> None:
    """Not only another identity: its parameters have other names or shapes."""
    found = load(study(tmp_path, factor, levels, PLAN, JOINT))
    configs = [cell.config for cell in cells(found)]
    assert [config[factor] for config in configs] == list(found.factors[factor])
    one, other = (
        {
            name: tensor.shape
            for name, tensor in prepare(config, cache, "cpu").model("s", 0).state_dict().items()
        }
        for config in configs
    )
    assert one != other


def test_an_algorithm_says_what_it_reads(tmp_path: Path) -> None:
    """A study of an algorithm that doesn't read the mixer is refused, whatever else it varies."""
    known = registry.get("algorithm", "bc")

    def uses(cls: type, config: dict) -> frozenset[str]:
        return frozenset({"context", "train.updates"})

    path = study(tmp_path, "mixer", "[gru, lstm]")
    assert load(path)
    blind = type("Blind", (known,), {"uses": classmethod(uses)})
    parts = [each for kind in registry.kinds() for each in registry.parts(kind)]
    parts.append(registry.Part("algorithm", "bc", blind, "test_inert", ""))  # the last one counts
    with (
        registry.scope(only=parts),
        pytest.raises(UserError, match=r"inert\.yaml:8: the levels gru and lstm of mixer lead to"),
    ):
        load(path)


def test_a_measurement_says_which_options_it_reads(tmp_path: Path, scope: None) -> None:
    class Blind(Measurement):
        Options = ActingOptions

        def __call__(self, trained: object, options: object) -> dict:
            return {}

        @classmethod
        def reads(cls, config: object) -> frozenset[str]:
            return frozenset({"episodes"})

    registry.register("measurement", "blind")(Blind)
    rest = "measure: {blind: {}}"
    assert load(study(tmp_path, "measure.blind.episodes", "[1, 2]", rest))
    with pytest.raises(UserError, match=r"nothing there reads measure\.blind\.cap"):
        load(study(tmp_path, "measure.blind.cap", "[1, 2]", rest))


def test_a_factor_that_a_part_of_the_cells_reads_is_refused_where_it_isnt(tmp_path: Path) -> None:
    """A window of attention beside a mixer without one: the line is that of the design, with the cell named."""
    text = TEXT.format(
        factors="  condition: [none, return-to-go]\n  measure.rollout.target: [p10, p90]",
        design="condition: all, measure.rollout.target",
        rest="measure: {rollout: {}}",
    )
    path = tmp_path / "inert.yaml"
    path.write_text(text)
    with pytest.raises(
        UserError, match=r"\(.*condition none.*\), since nothing there reads measure"
    ):
        load(path)
    path.write_text(text.replace("condition: all, ", "condition: return-to-go, "))
    assert load(path)
