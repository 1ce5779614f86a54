"""Published scores, `published.csv`: one number a row, with where it stands and how it was measured.

Columns: paper and table; algorithm; data (`d4rl/...` as the catalogue names it, `average/...` for a printed mean);
unit; score; spread and what it means (empty where none is printed); seeds; protocol (last or best evaluation,
targets, episodes); source; and evidence, how the number was checked:

    code      read in a repository
    run       measured by running the repository's code
    note      from a note on the paper, not the paper itself
    recall    from memory, unchecked: no goal should rest on it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ablate.errors import UserError

FILE = Path(__file__).with_name("published.csv")
COLUMNS = (
    *("paper", "table", "algorithm", "data", "unit", "score", "spread", "spread_meaning"),
    *("seeds", "protocol", "source", "evidence"),
)
EVIDENCE = ("code", "run", "note", "recall")
UNITS = ("D4RL-normalised", "gamer-normalised", "success, %")
OPTIONAL = ("spread", "spread_meaning", "seeds")

_KINDS = ("medium", "medium-replay", "medium-expert")
_LOCOMOTION = tuple(
    f"d4rl/{env}-{kind}-v2" for env in ("halfcheetah", "hopper", "walker2d") for kind in _KINDS
)
_MAZES = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
# What a printed average is taken over.
AVERAGES: dict[str, tuple[str, ...]] = {
    "average/locomotion": _LOCOMOTION,
    "average/locomotion+reacher": (*_LOCOMOTION, *(f"reacher2d/{kind}" for kind in _KINDS)),
    "average/table-3": tuple(
        f"{env}{kind}{version}"
        for env, version in (
            ("d4rl/halfcheetah-", "-v2"),
            ("d4rl/hopper-", "-v2"),
            ("d4rl/walker2d-", "-v2"),
            ("reacher2d/", ""),
        )
        for kind in ("medium", "medium-replay")
    ),
    "average/maze2d": tuple(f"d4rl/maze2d-{size}-v1" for size in ("umaze", "medium", "large")),
    "average/antmaze": tuple(f"d4rl/antmaze-{maze}-v2" for maze in _MAZES),
    "average/antmaze-5": tuple(
        f"d4rl/antmaze-{maze}-v0" for maze in _MAZES if maze != "umaze-diverse"
    ),
    "average/adroit": tuple(
        f"d4rl/{task}-{kind}-v1"
        for task in ("pen", "door", "hammer", "relocate")
        for kind in ("human", "cloned", "expert")
    ),
}


def published(path: Path = FILE) -> pd.DataFrame:
    """The table; score, spread and seeds are numbers, NaN where a row has none.

    Raises UserError naming the row and what is wrong with it.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(raw.columns) != COLUMNS:
        raise UserError(
            f"{path}: found columns {', '.join(raw.columns)}; {', '.join(COLUMNS)} are needed."
        )
    table = raw.copy()
    for name in ("score", "spread", "seeds"):
        table[name] = pd.to_numeric(raw[name], errors="coerce")
    _check(path, raw, (table["score"].isna()), "score", "a number")
    for name in ("spread", "seeds"):
        wrong = table[name].isna() & (raw[name] != "") | (table[name] < 0)
        _check(path, raw, wrong, name, "empty, or a number that isn't negative")
    _check(path, raw, ~raw["unit"].isin(UNITS), "unit", " or ".join(UNITS))
    _check(path, raw, ~raw["evidence"].isin(EVIDENCE), "evidence", ", ".join(EVIDENCE))
    for name in COLUMNS:
        if name not in OPTIONAL:
            _check(path, raw, raw[name].str.strip() == "", name, "not empty")
    meaningless = (raw["spread"] != "") != (raw["spread_meaning"] != "")
    _check(path, raw, meaningless, "spread_meaning", "there exactly where a spread is")
    average = raw["data"].str.startswith("average/") & ~raw["data"].isin(list(AVERAGES))
    _check(path, raw, average, "data", f"a known average: {', '.join(AVERAGES)}")
    twice = raw.duplicated(["paper", "table", "algorithm", "data"])
    _check(path, raw, twice, "data", "of this paper, table and algorithm only once")
    return table


def _check(
    path: Path, raw: pd.DataFrame, wrong: Sequence[bool] | pd.Series, column: str, allowed: str
) -> None:
    places = [index for index, bad in enumerate(wrong) if bad]
    if places:
        found = raw[column].iloc[places[0]]
        # the file's first line holds the columns' names
        raise UserError(
            f"{path}, line {places[0] + 2}: {column}: found '{found}'; allowed: {allowed}."
        )
