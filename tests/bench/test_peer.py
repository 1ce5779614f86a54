"""A public repository's update beside ours, with tiny made-up checkouts."""

from __future__ import annotations

import collections
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peer_samples import CORL, GYM, PLANNER, TRAJECTORY, checkout
from rich.console import Console

from ablate.bench import table
from ablate.bench.peer import KNOWN, PLANNERS, Conv1D, Nothing, gpt2_config, peer, planner
from ablate.bench.planner import peer_rows
from ablate.errors import UserError
from ablate.plan.options import PlanOptions


@pytest.mark.parametrize(
    ("files", "name", "preset"),
    [
        (GYM, "Decision Transformer", "dt"),
        (CORL, "CORL's Decision Transformer", "dt"),
        (TRAJECTORY, "Trajectory Transformer", "tt"),
    ],
)
def test_a_checkout_is_known_by_its_files_and_runs_without_its_requirements(
    files: dict[str, str], name: str, preset: str, tmp_path: Path
) -> None:
    modules, path = set(sys.modules), list(sys.path)
    found = peer(checkout(tmp_path, files))
    assert (found.name, found.preset) == (name, preset)
    found.update()
    assert sys.path == path
    left = set(sys.modules) - modules
    assert not [n for n in left if n.split(".")[0] in ("transformers", "gym", "trajectory", "d4rl")]
    assert not [n for n in left if n.startswith("decision_transformer")]


def test_a_search_is_asked_for_what_ours_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules, had = set(sys.modules), hasattr(collections, "Mapping")
    name, plan = planner(checkout(tmp_path, PLANNER))
    assert name == "Trajectory Transformer"
    options = PlanOptions(horizon=3, beam=2, max_context_transitions=4)
    plan(options)()
    asked: Any = plan(options.model_copy(update={"mode": "full"}))()
    assert asked[1:] == [(4 * 16 + 11, 3, 4, 159), (4 * 16 + 11, 3, None, 7 * 16 - 1)]
    left = {name.split(".")[0] for name in set(sys.modules) - modules}
    assert not left & {"trajectory", "git", "gym", "tap", "mujoco_py", "skvideo"}
    assert hasattr(collections, "Mapping") == had
    assert capsys.readouterr().out == ""


def test_a_search_is_timed_beside_ours_in_each_of_its_windows(tmp_path: Path) -> None:
    small = PlanOptions(horizon=2, beam=2, max_context_transitions=2)
    rows = peer_rows(checkout(tmp_path, PLANNER), 1, (("a", small, True), ("b", small, False)))
    assert [(row["what"], row["mode"], row["its window"]) for row in rows] == [
        ("a", "reference", "cropped"),
        ("a", "full", "cropped"),
        ("a", "full", "whole"),
        ("b", "reference", "cropped"),
        ("b", "full", "cropped"),
    ]
    for row in rows:
        assert row["times"] == row["peer seconds"] / row["seconds"] == row["least"] == row["most"]


def test_a_checkout_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkout that is known") as error:
        planner(checkout(tmp_path, CORL))
    assert all(name in str(error.value) for name in PLANNERS)


def test_another_folder_and_a_checkout_that_fails_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="no checkout that is known; allowed: a folder that holds"
    ) as error:
        peer(tmp_path)
    assert all(name in str(error.value) for name in KNOWN)
    broken = TRAJECTORY | {"trajectory/models/ein.py": "import nowhere_to_be_found"}
    with pytest.raises(UserError, match=r"cannot be run \(ModuleNotFoundError: .*nowhere") as error:
        peer(checkout(tmp_path, broken))
    assert "\n" not in str(error.value)


def test_a_peer_is_for_the_update_and_the_planner_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="measured by the parts update and planner only"):
        table.show(Console(), "acting", peer=tmp_path)


def test_stand_ins_compute_what_they_stand_for() -> None:
    layer, x = Conv1D(5, 3), torch.randn(2, 4, 3)
    torch.testing.assert_close(layer(x), x @ layer.weight + layer.bias)
    assert gpt2_config(n_layer=2).n_layer == 2
    decorated = Nothing().anything("an argument")(len)
    assert decorated is len
