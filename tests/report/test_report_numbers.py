"""Numbers typed into the paper's text are found, and what isn't a result is let through."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.report.numbers import by_hand, typed

ROOT = Path(__file__).parents[2]


def text(line: str) -> str:
    return f"\\documentclass[10pt]{{article}}\n\\begin{{document}}\n{line}\n\\end{{document}}"


@pytest.mark.parametrize(
    "line",
    [
        r"\SmallMemoryEstimate{} points, see Section 3.1, Figures~2 and 3 and Table 4.",
        r"Chen et al. (2021), Janner~2021b and \cite{chen2021,janner2021}",
        "D4RL, walker2d-medium-v2 and PointMaze",
        r"$x_{t+1} = A x_t + w^{(3)}$, $\|x\|^2$, $t - 1$ and \(\frac{1}{2}\)",
        r"\begin{equation} \pi(a_0 \mid s_{0:9}) = 1 - \pi' \end{equation}",
        r"\includegraphics[width=0.5\textwidth]{figures/small/forest2.pdf}\vspace{2.5pt}\\[3pt]",
        r"\begin{tabular}{p{1.15in}rr} a & \SmallPoneInterval \end{tabular} % 12 trials",
        r"\verb|--seeds 5| and \texttt{seeds: 5} and \url{https://example.org/10}",
        "\\begin{verbatim}\nseeds: 10\n\\end{verbatim}",
        r"\begin{thebibliography}{99} Journal 6:65--70, 1979. \end{thebibliography}",
        r"Intervals are at 95\,\%. % given: the level of every interval",
        r"\multicolumn{3}{l}{text}\setlength{\parskip}{2pt}\setcounter{page}{7}",
    ],
)
def test_what_is_no_result_is_let_through(line):
    assert typed(text(line)) == []


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("Memory brings +16.3 points.", "+16.3"),
        (r"$-7.6$ points", "-7.6"),
        ("$K = 20$", "20"),
        ("$2$ of them", "2"),
        ("2,010 trials", "2,010"),
        ("95 \\% of them % giving no reason", "95"),
        ("in 2010 trials", "2010"),
        (r"\section[7 seeds]{Seeds}", "7"),
        (r"\item[4] of them", "4"),
        (r"\textbf{12} \emph{of} them", "12"),
        (r"a & 1.5 \\", "1.5"),
        (r"$x_1$ is 0.5\,s", "0.5"),
    ],
)
def test_a_typed_number_is_found_in_its_line(line, number):
    ((where, what),) = typed(text(line))
    assert where == 3
    assert what.startswith(f"{number} is typed by hand")


def test_titles_and_definitions_count_and_layout_does_not():
    source = (
        "\\renewcommand{\\topfraction}{0.95}\n\\title{On 10 seeds}\n\\newcommand{\\Mine}{+3.4}\n"
        "\\renewcommand{\\SmallMargin}{5}\n\\begin{document}\\def\\SmallAlpha{x}\\end{document}"
    )
    found = sorted(typed(source, {"SmallMargin", "SmallAlpha"}))
    assert [line for line, _ in found] == [2, 3, 4, 5]
    assert found[2][1] == r"\SmallMargin is the report's to define"


def test_a_figure_that_is_not_made_is_told(tmp_path):
    (tmp_path / "figures/small").mkdir(parents=True)
    (tmp_path / "figures/small/forest.pdf").write_bytes(b"")
    main = tmp_path / "main.tex"
    main.write_text(
        "\\includegraphics{figures/small/forest.pdf}\n% \\input{tables/commented}\n"
        "\\input{tables/small/gone.tex}\nfound 4\n"
    )
    first, second = by_hand(tmp_path, [main], ())
    assert first.startswith(f"{main}:3: tables/small/gone.tex isn't there")
    assert second.startswith(f"{main}:4: 4 is typed by hand")


def test_the_paper_types_no_number():
    folder = ROOT / "paper"
    assert by_hand(folder, [folder / "main.tex"], ()) == []
