"""What `plan` says of tokens and of what a search sees, and contexts given in tokens."""

from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.launch.planning import sights, tokens
from ablate.study.expand import cells
from ablate.study.load import load

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
