"""The overview of all claims: what people may write, and that every number is a hypothesis's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.report import claims, style, universes

FACTS = {
    "id": "helps",
    "says": "Memory helps.",
    "primary": True,
    "verdict": "supported",
    "standing": "confirmatory",
    "estimate": 7.2,
    "low": 6.1,
    "high": 8.3,
    "around": 0.0,
    "matters": 3.0,
    "shown": "+7.2 points (6.1 to 8.3)",
    "seeds": 5,
    "universes": 60,
    "stands": 0.8,
    "same_sign": 1.0,
    "replications": [0, 0],
}
FINDINGS = [
    FACTS,
    {**FACTS, "id": "far", "estimate": -40.0, "low": None, "high": -30.0, "verdict": "refuted"},
    {**FACTS, "id": "later", "estimate": None, "verdict": "not tested", "primary": False},
    {**FACTS, "id": "bare", "matters": None, "universes": None, "stands": None, "same_sign": None},
]
CONTROL = {"share": 0.041, "reason": "", "universes": 36, "arms": 12, "splits": 10, "alpha": 0.05}
ENTRIES = {"memory": {"question": "Does it help?", "findings": FINDINGS, "control": CONTROL}}
TEXT = """\
- claim: Memory helps 100 %.
  found: It does; and costs nothing.
  rests_on: {memory/helps: regret, memory/far: steps, memory/later: reach, memory/bare: error}
- claim: Goals come for free.
  found: not run yet
"""


def made(folder: Path, text: str) -> tuple[claims.Claim, ...]:
    (folder / "claims.yaml").write_text(text, encoding="utf-8")
    return claims.read(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("claim: x", "allowed: a list of claims"),
        ("- claim: x\n", "claim 1.found: found"),
        ("- {claim: x, found: y, why: z}\n", "claim 1: 'why'"),
        ("- {claim: x, found: It is 7 points.}\n", "has the number 7"),
        ("- {claim: x, found: y, rests_on: [a/b]}\n", "claim 1.rests_on: found"),
        ("- [\n", "claims.yaml"),
    ],
)
def test_what_is_no_list_of_claims_is_refused(tmp_path, text, said):
    with pytest.raises(UserError) as refused:
        made(tmp_path, text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("goals/helps", "the study: 'goals'"), ("memory/hepls", "Did you mean 'helps'?")],
)
def test_what_a_claim_rests_on_has_to_be_there(tmp_path, name, said):
    found = made(tmp_path, f"- {{claim: x, found: y, rests_on: {{{name}: z}}}}\n")
    with pytest.raises(UserError) as refused:
        claims.draw(found, ENTRIES, style.DEFAULT)
    assert said in str(refused.value)


def test_without_a_file_there_is_no_claim(tmp_path):
    assert claims.read(tmp_path) == ()


def test_the_figure_shows_every_claim_and_every_number_the_same_again(tmp_path):
    found = made(tmp_path, TEXT)
    first, again = (claims.draw(found, ENTRIES, style.DEFAULT) for _ in range(2))
    assert first == again
    with style.paper_style():
        figure = claims._figure(found, ENTRIES)
    shown = "\n".join(text.get_text() for text in figure.texts)
    for text in ("Memory helps 100 %.", "It does", "+7.2 points (6.1 to 8.3)", "not tested"):
        assert text in shown
    assert "supported; 5 seeds; 80 % of universes" in " ".join(shown.split())
    panel = figure.axes[0]
    places = [line.get_xdata()[0] for line in panel.lines if line.get_marker() in ("o", "<")]
    assert places == pytest.approx([7.2 / 3.0, -claims.REACH])  # the second lies beyond the axis
    widths = [text.get_window_extent().x1 for text in figure.texts]
    assert max(widths) <= figure.bbox.x1


def test_the_table_has_what_is_primary():
    standing = claims.standing(ENTRIES)
    assert standing.count("memory &") == 4
    assert r"helps & supported & +7.2 points (6.1 to 8.3) & 80 \% & 100 \% & 60 & " in standing
    assert r"memory & control: halves &  & no difference in 95.9 \%" in standing
    assert "later" not in standing


def test_the_figure_of_universes_has_every_primary_in_words_and_the_control():
    first, again = (universes.draw(ENTRIES, style.DEFAULT) for _ in range(2))
    assert first == again
    assert set(first) == {"figures/universes.pdf", "figures/universes.png"}
    with style.paper_style():
        figure = universes._figure(universes._rows(ENTRIES["memory"]))
    shown = [text.get_text() for text in figure.texts]
    assert shown.count("Memory helps.") == 3  # the one that isn't primary is left out
    assert "supported: 80 % of 60" in shown
    assert "no difference in 95.9 %" in shown
    filled = [line for line in figure.axes[0].lines if line.get_marker() in ("X", "o")]
    assert [line.get_marker() for line in filled].count("X") == 2  # below 90 %
    widths = [text.get_window_extent().x1 for text in figure.texts]
    assert max(widths) <= figure.bbox.x1


def test_many_studies_take_several_pages_and_none_is_torn_apart():
    many = {f"s{n}": {**ENTRIES["memory"], "findings": [FACTS] * 20} for n in range(5)}
    parts = universes._parts(many)
    assert [len(part) for part in parts] == [44, 44, 22]
    assert all(universes._height(part) * universes._LINE <= universes._TALLEST for part in parts)
    assert universes.names(ENTRIES) == ["figures/universes"]
    untold = {"share": None, "reason": "no arm has four seeds"}
    assert universes.control_words(untold) == "not measured: no arm has four seeds"


def test_a_report_writes_the_overview_and_notices_what_was_done_to_it(written, tmp_path):
    again = written.copy(tmp_path)
    manifest = json.loads((again.paper / "manifest.json").read_text())
    hypothesis = manifest["studies"]["small"]["findings"][0]["id"]
    assert (again.paper / claims.STANDING).is_file()
    assert "tables/standing.tex" in (again.paper / "supplement.tex").read_text()
    path = again.paper / "claims.yaml"
    path.write_text(f"- {{claim: x, found: y, rests_on: {{small/{hypothesis}: z}}}}\n")
    assert any("claims.pdf: missing" in line for line in again.check())
    again.write(pdf=False)
    assert again.check() == []
    assert (again.paper / "figures/claims.png").is_file()
    path.unlink()
    assert (
        sorted(line.rsplit(": ", 1)[1] for line in again.check())
        == ["extra, not written by this report"] * 2
    )
    again.write(pdf=False)
    assert not (again.paper / "figures/claims.png").exists()
