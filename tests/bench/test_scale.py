"""`bench scale`: each part measures what it says, on few fits."""

from pathlib import Path

import pytest

from ablate.bench import scale


@pytest.mark.parametrize("part", ["store", "table"])
def test_a_part_writes_and_reads_as_many_as_asked(part: str, tmp_path: Path) -> None:
    found = scale.PARTS[part](tmp_path, 30)
    assert min(found["write, µs a fit"], found["read, µs a fit"]) > 0
    assert found["files"] == (180 if part == "store" else 1)
    assert found["bytes a fit"] > 100


def test_the_table_from_elsewhere_has_a_row_a_fit(tmp_path: Path) -> None:
    _, table = scale.theirs(tmp_path, 1_000)
    lines = table.read_text().splitlines()
    assert len(lines) == 1_001
    assert len({line.rpartition(",")[0] for line in lines}) == 1_001
