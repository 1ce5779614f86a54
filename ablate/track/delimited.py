"""Tables as text, however they were exported: encoding, separator, index column and marks of numbers are found
by looking, and everything that isn't a plain CSV in UTF-8 is said in a note.

Every cell stays text, so that a refusal can quote what stands there. What a file leaves open is refused where it
matters: whether `1,234` is a fraction or a thousand is asked only of a column that a study needs as numbers.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ablate.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
DECIMAL = "has decimal commas"
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:\.\d{3})+")
_LOOKED = 200  # lines by which a separator is judged
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_EXPONENT = r"(?:[eE][-+]?\d+)?"
_POINT = re.compile(
    rf"[-+]?(?:\d+|\d{{1,3}}(?:,\d{{3}})+)(?:\.\d*)?{_EXPONENT}|[-+]?\.\d+{_EXPONENT}"
)
_COMMA = re.compile(
    rf"[-+]?(?:\d+|\d{{1,3}}(?:\.\d{{3}})+)(?:,\d*)?{_EXPONENT}|[-+]?,\d+{_EXPONENT}"
)
_MARKED = re.compile(r"[,'_\u2019\u2212\u00a0\u2009\u202f]|\d \d")
_GROUPED = re.compile(r"(?<=\d)[ '_\u00a0\u2009\u202f\u2019](?=\d{3}(?!\d))")
_EMPTY = {"", "nan", "na", "n/a", "none", "null", "inf", "-inf", "infinity", "-infinity"}


def read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The cells as text, and what was found about the file, in words. Raises UserError, in one line, for what
    is no table."""
    text, notes = _decoded(path)
    separator, said, text = _separator(text)
    header, lines = _cells(path, text, separator)
    notes += said
    header, lines, dropped = _without_index(path, header, lines)
    notes += dropped
    again = sorted({name for name in header if header.count(name) > 1})
    if again:
        raise UserError(f"{path}: two columns are called '{again[0]}'; each name may stand once.")
    columns, marks = {}, {}
    for place, name in enumerate(header):
        columns[name], marks[name] = _plain([line[place] for line in lines], separator)
    notes += [f"'{name}' {mark}" for name, mark in marks.items() if mark]
    _no_other_points(path, columns, marks)
    return pd.DataFrame(columns, columns=header, dtype=object), notes


def _no_other_points(
    path: Path, columns: Mapping[str, Sequence[str]], marks: Mapping[str, str]
) -> None:
    """Refuse numbers such as 1.234, which are thousands where other columns have decimal commas."""
    comma = next((name for name, mark in marks.items() if mark == DECIMAL), None)
    for name, cells in columns.items() if comma is not None else ():
        grouped = next((c for c in cells if _THOUSANDS.fullmatch(c.strip())), None)
        if not marks[name] and grouped is not None:
            raise UserError(
                f"{path}: '{name}' holds '{grouped.strip()}' and '{comma}' decimal commas; write it without its "
                "point if that marks thousands, or with a comma."
            )


def _decoded(path: Path) -> tuple[str, list[str]]:
    """The text of a file, and a note where it isn't UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    for mark, name in _MARKS:
        if raw.startswith(mark):
            try:
                text = raw[len(mark) :].decode(name)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: it begins as {name} and isn't ({error.reason})."
                ) from None
            return text, [] if name == "utf-8" else [f"read as {name}"]
    if b"\0" in raw:
        raise UserError(f"{path}: it is not a table of text; it holds zero bytes.")
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError as error:
        at = 1 + raw.count(b"\n", 0, error.start)
    try:
        return raw.decode("cp1252"), [f"read as cp1252 (line {at} is not UTF-8)"]
    except UnicodeDecodeError:
        return raw.decode("latin-1"), [f"read as latin-1 (line {at} is not UTF-8)"]


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends, which are those that a CSV knows."""
    return iter(io.StringIO(text, newline=""))


def _separator(text: str) -> tuple[str, list[str], str]:
    """What separates the cells, a note where that isn't a comma, and the text without a line that only names it."""
    named = re.match(r"sep=(.)\r?\n", text)
    if named and named[1] in SEPARATORS:
        return named[1], [f"its cells are separated by {SEPARATORS[named[1]]}"], text[named.end() :]
    lines = [line for line in itertools.islice(_lines(text), _LOOKED) if line.strip()]
    found = []
    for order, mark in enumerate(SEPARATORS):
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=mark)]
        except csv.Error:
            continue
        if counts and counts[0] > 1:
            alike = sum(count in (counts[0], counts[0] + 1) for count in counts) / len(counts)
            found.append((alike > 0.9, counts[0], -order, mark))
    if not found:
        return ",", [], text
    mark = max(found)[3]
    return mark, [] if mark == "," else [f"its cells are separated by {SEPARATORS[mark]}"], text


def _cells(path: Path, text: str, separator: str) -> tuple[list[str], list[list[str]]]:
    """The header and the lines, all of one length. A line longer by one throughout has names of rows in front."""
    try:
        reader = csv.reader(_lines(text), delimiter=separator, strict=True)
        header = next((row for row in reader if row), [])
        header = [name.strip() for name in header]
        lines: list[list[str]] = []
        width = len(header)
        for line in reader:
            if not any(line):
                continue  # a blank line, or one of separators only
            if not lines and len(line) == width + 1 and all(header):
                header, width = ["", *header], width + 1
            if len(line) != width:
                raise UserError(
                    f"{path}, line {reader.line_num}: it has {len(line)} cells, the header has "
                    f"{width}; the file is cut off or was edited."
                )
            lines.append(line)
    except csv.Error as error:
        raise UserError(f"{path}: it is not a table of text ({error}).") from error
    if not header:
        raise UserError(f"{path}: the file is empty.")
    if not lines:
        raise UserError(f"{path}: the table has no rows.")
    return header, lines


def _without_index(
    path: Path, header: list[str], lines: list[list[str]]
) -> tuple[list[str], list[list[str]], list[str]]:
    """Without the columns of no name that only number the rows, or hold nothing."""
    notes = []
    while "" in header:
        place = header.index("")
        cells = [line[place].strip() for line in lines]
        if not any(cells):
            notes.append(f"column {place + 1}, which is empty, was left out")
        elif place == 0 and len(set(cells)) == len(cells) and all(map(str.isdecimal, cells)):
            notes.append("the first column, which has no name and numbers the rows, was left out")
        else:
            raise UserError(
                f"{path}: column {place + 1} has no name, and doesn't merely number the rows; name it in the "
                "first line."
            )
        header = header[:place] + header[place + 1 :]
        lines = [line[:place] + line[place + 1 :] for line in lines]
    return header, lines, notes


def _plain(cells: Sequence[str], separator: str) -> tuple[Sequence[str], str]:
    """The cells with numbers as Python writes them, and how they were written, in words, where otherwise.

    A column is changed as a whole or not at all: where a single cell is no number, or commas can be read both
    ways, it stays as it is.
    """
    different = set(cells)
    if not _MARKED.search("\n".join(different)):  # at once, as most columns hold none
        return cells, ""
    marked = [cell for cell in different if _MARKED.search(cell)]
    shown = {cell: _GROUPED.sub("", cell.strip().replace("\u2212", "-")) for cell in different}
    numbers = [text for text in shown.values() if text.lower() not in _EMPTY]
    points = all(_POINT.fullmatch(text) for text in numbers)
    commas = all(_COMMA.fullmatch(text) for text in numbers)
    if not points and not commas:
        return cells, ""
    told = ""
    if any("," in text for text in numbers):
        if points and commas:  # e.g. 1,234 throughout
            if separator != ";":
                return cells, ""
            points = False  # semicolons stand where the comma marks fractions
        if points:
            told = "has commas between thousands"
            shown = {cell: text.replace(",", "") for cell, text in shown.items()}
        else:
            told = DECIMAL
            shown = {cell: text.replace(".", "").replace(",", ".") for cell, text in shown.items()}
    elif not points:
        return cells, ""
    elif any(len(shown[cell]) != len(cell.strip()) for cell in marked):
        told = "has marks between thousands"
    return [shown[cell] for cell in cells], told
