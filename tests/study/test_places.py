"""What a study names lies beside the study, wherever the command is typed."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from ablate.study import expand
from ablate.study.load import load

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
