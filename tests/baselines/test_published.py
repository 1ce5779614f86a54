"""The published table is whole, says where each number comes from, and its averages can be recomputed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import UserError
from baselines.published import AVERAGES, FILE, published

# Printed averages that the printed cells don't give: the paper's two BC averages look exchanged, and the AntMaze
# note's CQL average is off by one point.
DIFFERENT = {
    ("Chen et al. 2021", "2", "BC"),
    ("Janner et al. 2021", "AntMaze", "CQL"),
}


def test_every_table_has_all_its_rows() -> None:
    counts = published().groupby(["paper", "table"]).size().to_dict()
    assert counts == {
        ("CORL", "last scores"): 340,  # 30 sets and 4 averages of 10 algorithms
        ("CORL", "best scores"): 340,
        ("Chen et al. 2021", "1"): 20,  # 4 games, 5 algorithms
        ("Chen et al. 2021", "2"): 72,  # 54 cells of 6 algorithms, 9 of 3 on reacher, 9 averages
        ("Chen et al. 2021", "3"): 37,  # 8 sets at 4 shares, 5 averages
        ("Chen et al. 2021", "6"): 10,
        ("Chen et al. 2021", "7"): 8,
        ("Emmons et al. 2022", "RvS-G"): 6,
        ("Emmons et al. 2022", "RvS-R"): 9,
        ("Janner et al. 2021", "1"): 73,  # 9 cells of 7 algorithms, 3 of ant, 7 averages
        ("Janner et al. 2021", "AntMaze"): 30,
    }


def test_printed_averages_are_those_of_the_printed_cells() -> None:
    seen, off = 0, set()
    for where, group in published().groupby(["paper", "table", "algorithm"]):
        scores = group.set_index("data")["score"]
        for data, parts in AVERAGES.items():
            if data in scores.index and set(parts) <= set(scores.index):
                seen += 1
                if abs(scores.loc[data] - scores.loc[list(parts)].mean()) > 0.051:
                    off.add(where)
    assert seen == 105
    assert off == DIFFERENT


def test_the_selection_rule_is_worth_most_of_what_divides_dt_from_bc() -> None:
    """CORL's locomotion averages: DT leads by 23.4 at the last evaluation, by 7.3 at the best."""
    table = published().set_index(["table", "algorithm", "data"])["score"]
    lead = {
        rule: table[f"{rule} scores", "DT", "average/locomotion"]
        - table[f"{rule} scores", "BC", "average/locomotion"]
        for rule in ("last", "best")
    }
    assert lead == {"last": pytest.approx(23.44), "best": pytest.approx(7.34)}


def test_a_number_from_memory_is_marked_as_such() -> None:
    table = published()
    assert set(table.loc[table["paper"] == "Emmons et al. 2022", "evidence"]) == {"recall"}
    assert set(table.loc[table["paper"] == "CORL", "evidence"]) == {"code"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("267.5", "high", "score: found 'high'; allowed: a number"),
        ("267.5,97.5", "267.5,-1", "spread: found '-1'; allowed: empty, or a number that isn't"),
        ("gamer-normalised", "points", "unit: found 'points'; allowed: D4RL-normalised or"),
        (",note\n", ",hearsay\n", "evidence: found 'hearsay'; allowed: code, run, note, recall"),
        ('"as printed, over seeds"', "", "spread_meaning: found ''; allowed: there exactly where"),
        ("https://arxiv.org/abs/2106.01345", "", "source: found ''; allowed: not empty"),
        ("average/antmaze,", "average/ants,", "data: found 'average/ants'; allowed: a known aver"),
        ("1,CQL,atari/breakout", "1,DT,atari/breakout", "only once"),
    ],
)
def test_a_damaged_table_is_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    text = FILE.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        published(path)
    assert str(caught.value).startswith(f"{path}, line ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_files_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    with pytest.raises(UserError, match="there is no such file"):
        published(path)
    path.write_text("paper,score\nx,1\n")
    with pytest.raises(UserError, match="found columns paper, score;"):
        published(path)
