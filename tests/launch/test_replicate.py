"""`run --replications`: what each part of a claim came to, under streams of its own."""

from __future__ import annotations

import pandas as pd
import pytest
from tiny_study import TEXT, Tiny

from ablate.analyse.replication import COLUMNS
from ablate.track.table import framed, read_columns, read_table

CLAIMS = """\
hypotheses:
  - id: equal
    says: Mixers predict alike with each context.
    contrast: mixer[gru] - mixer[mlp]
    where: {condition: none, history: states+actions}
    each: context
    metric: held-out.loss
    test: difference
  - id: memory
    says: Memory helps.
    contrast: context[1] - context[2]
    where: {condition: none, history: states+actions, mixer: mlp}
    metric: held-out.loss
    test: difference
"""


def test_each_part_has_a_row_in_each_replication(tiny: Tiny) -> None:
    more = TEXT.replace("context: all}", "context: all, mixer: all}")
    tiny.file.write_text(more + CLAIMS, encoding="utf-8")
    ended = tiny.run("--replications", "3")
    assert ended.code == 0, ended.err
    found = framed(read_columns(tiny.root / "replications.csv"))
    assert tuple(found.columns[: len(COLUMNS)]) == COLUMNS
    assert found["streams"].unique().tolist() == ["tiny-1", "tiny-2", "tiny-3"]
    parts = found[found["hypothesis"] == "equal"]
    assert len(parts) == 2 * 3
    assert parts["part"].nunique() == 2
    single = found[found["hypothesis"] == "memory"]
    assert len(single) == 3
    assert single["part"].isna().all() or (single["part"] == "").all()
    for streams, rows in parts.groupby("streams"):
        table = read_table(tiny.root / f"streams-{streams}" / "trials.csv")
        core = table[(table["condition"] == "none") & (table["history"] == "states+actions")]
        means = core.pivot_table(index="context", columns="mixer", values="held-out.loss")
        apart: pd.Series = means["gru"] - means["mlp"]
        assert sorted(rows["estimate"]) == pytest.approx(sorted(apart))
