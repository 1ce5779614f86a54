"""What a study names lies beside the study, wherever the command is typed."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from ablate.report.commands import ours
from ablate.study import expand
from ablate.study.load import load
from tests.tiny_study import ROOT, Tiny

PRESETS = """\
study: presets
question: Does a larger network help?
factors: {preset: [bc, wide.yaml]}
data: [tmaze/passive-3]
designs: {all: {data: all, preset: all}}
train: {updates: 4}
seeds: 2
"""


def test_a_preset_of_ones_own_is_a_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    shipped = (resources.files("ablate.study.presets") / "bc.yaml").read_text()
    assert "width: 256" in shipped
    (folder / "wide.yaml").write_text(shipped.replace("width: 256", "width: 300", 1))
    (folder / "presets.yaml").write_text(PRESETS)
    monkeypatch.chdir(elsewhere)
    study = load(folder / "presets.yaml")
    widths = {cell.levels["preset"]: cell.config["model"]["width"] for cell in expand.cells(study)}
    assert widths == {"bc": 256, "wide.yaml": 300}


def test_an_earlier_measurement_is_drawn_from_beside_the_study(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny.run("--seeds", "2").code == 0
    text = (ROOT / "studies/memory_vs_arch.reference.csv").read_text()
    (tiny.folder / "tiny.reference.csv").write_text(text)
    elsewhere = tiny.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = ours(load(tiny.file), tiny.results)
    assert len(found.reference) == text.count("\n") - 1
