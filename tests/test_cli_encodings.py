"""Text for streams of any encoding."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.cli.shared import plain


@settings(derandomize=True, deadline=None)
@given(st.text(), st.sampled_from(["ascii", "cp1252", "latin-1", "cp437", "utf-8"]))
def test_any_text_reaches_any_stream(text, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="ablate.plain", newline="")
    stream.write(text)
    stream.flush()
    shown = raw.getvalue().decode(encoding)
    known = [c for c in text if _carried(c, encoding)]
    assert shown == text or len(known) < len(text)


def _carried(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("+7.4 (−8.8 to 5) ± 2 × 3 — “a” …", '+7.4 (-8.8 to 5) +/- 2 x 3 - "a" ...'),
        ("≤ ≥ ≈ → ▁█ ┌─┐", "<= >= ~ -> .@ +-+"),
        ("Köln, São, ω and Δ", "Koln, Sao, omega and delta"),
        ("日本\udcff", "???"),
        ("plain [b] $x$", "plain [b] $x$"),
    ],
)
def test_characters_have_stand_ins_in_ascii(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_commands_end_well_in_any_encoding(encoding, tmp_path):
    """Help, a refusal with a name that the stream can't carry, and the version, in one process each."""
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": encoding,
    }
    code = (
        "from ablate.cli import main\n"
        "for arguments in (['--version'], ['-h'], ['report', '-h'], ['data', 'show', 'no\\u2212where']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: print('code', end.code)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True
    )
    out, err = ended.stdout.decode(encoding), ended.stderr.decode(encoding)
    assert ended.returncode == 0, err
    assert out.count("code 0") == 3
    assert out.endswith("code 2\n")
    assert "'no-where'" in err
    assert "Traceback" not in err
