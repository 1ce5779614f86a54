"""What the report says of the committed results, against a script that shares no code with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate import registry
from ablate.report.commands import ours
from ablate.study.load import load
from tests.analyse.second_opinion import OPINIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("study", sorted(OPINIONS))
def test_a_second_opinion_agrees_to_eight_places(study: str) -> None:
    with registry.scope():
        results = ours(load(ROOT / "studies" / f"{study}.yaml"), ROOT / "results")
        verdicts = {verdict.hypothesis: verdict for verdict in results.analysis.verdicts}
    for name, numbers in OPINIONS[study](ROOT / "results" / study).items():
        found = verdicts[name]
        assert (found.estimate, found.low, found.high) == pytest.approx(numbers, rel=1e-8, abs=1e-8)
