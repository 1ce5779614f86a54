"""What every command shares: how errors become one line, how text reaches a stream of any encoding, a bar for long
work, options that several have."""

from __future__ import annotations

import codecs
import inspect
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ablate.errors import UserError

console = Console(soft_wrap=True, markup=False, highlight=False)  # names may hold brackets

Plugin = Annotated[
    list[str] | None,
    typer.Option(help="FILE.py or module with parts of your own; repeatable."),
]
Results = Annotated[Path, typer.Option(help="Where results lie, one folder a study.")]
Debug = Annotated[bool, typer.Option(help="Show the trace of an error.")]
RESULTS = Path("results")


_PLAIN = {
    **dict.fromkeys("‐‑‒–—−", "-"),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("“”″", '"'),
    **{
        "×": "x",
        "±": "+/-",
        "→": "->",
        "…": "...",
        "·": ".",
        "•": "*",
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "≠": "!=",
    },
    **{
        "✗": "x",
        "✓": "ok",
        "●": "*",
        "○": "o",
        "ß": "ss",
        "æ": "ae",
        "ø": "o",
        "€": "EUR",
        "§": "section ",
        "°": " deg",
    },
    **dict(zip("▁▂▃▄▅▆▇█", "._-=+*#@", strict=True)),
    **{
        "│": "|",
        "─": "-",
        "┌": "+",
        "┐": "+",
        "└": "+",
        "┘": "+",
        "├": "+",
        "┤": "+",
        "┬": "+",
        "┴": "+",
        "┼": "+",
    },
}


def plain(text: str) -> str:
    """The text in ASCII: punctuation and letters by what stands for them, Greek letters by name, all else as `?`."""
    out = []
    for character in text:
        known = _PLAIN.get(character)
        if known is None:
            bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
            name = unicodedata.name(character, "")
            greek = name.startswith("GREEK") and name.split(" LETTER ")[-1].split(" ")[0].lower()
            known = bare if bare.strip() or character.isspace() else greek or "?"
        out.append(known)
    return "".join(out)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """For what a stream can't carry, `plain` of it: a handler of errors as `codecs` knows them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error("ablate.plain", _stand_in)


def any_encoding() -> None:
    """Let both standard streams carry any text, whatever their encoding: what it lacks is replaced by `plain`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not every stand-in for a stream has an encoding
            stream.reconfigure(errors="ablate.plain")


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors meant for people into one line and exit code 2, an interruption into 130."""

    @wraps(function)
    def call(*args: Any, debug: bool = False, **options: Any) -> None:
        try:
            code = function(*args, **options)
        except UserError as error:
            if debug:
                raise
            print(f"ablate: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stopped:
            left = getattr(stopped, "left", "")
            print(
                f"ablate: stopped; what is finished is kept. The same command goes on from here. {left}".rstrip(),
                file=sys.stderr,
            )
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise  # `| head` has seen enough: no error, which typer knows
        except OSError as error:
            if debug:
                raise
            print(f"ablate: {error.filename or 'system'}: {error.strerror}.", file=sys.stderr)
            raise typer.Exit(2) from None
        if code:
            raise typer.Exit(code)

    # Typer reads the signature: the option that every command shares is added here, once.
    signature = inspect.signature(function, eval_str=True)
    debug = inspect.Parameter(
        "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
    )
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), debug]
    )
    call.__annotations__ = {**function.__annotations__, "debug": Debug}
    return call


@dataclass(frozen=True)
class Launching:
    """Which launcher a command named, and with which options, by name."""

    name: str
    options: dict[str, Any]


_Launcher = Annotated[
    str, typer.Option(help="Who runs the cohorts: local, slurm, ray, or one of a plugin's.")
]
_Further = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="Another option of the launcher, e.g. --option account=me; repeatable. All have a name in the docs.",
    ),
]
# Options that launchers share have a word of their own; a launcher refuses what it doesn't have.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "cap": (int, "Of a cluster: jobs at once."),
    "partition": (str, "SLURM: where jobs run."),
    "minutes": (
        int,
        "Of a cluster: how long a job may take; what is unfinished goes on in the next.",
    ),
    "cohorts_per_job": (
        int,
        "Of a cluster: cohorts in a job, one after another [by their length].",
    ),
    "cpus": (float, "Of a cluster: processors of a job."),
    "gpus": (float, "Of a cluster: GPUs of a job; on Ray a share of one, 0.25, as well."),
    "address": (str, "Ray: HOST:PORT of a cluster's head [a cluster of this machine alone]."),
    "retries": (int, "Of a cluster: how often a cohort goes on that was lost with its worker."),
}


def launching(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of launchers; it gets them as one argument, `launching`."""

    @wraps(function)
    def call(
        *args: Any, launcher: str = "local", option: list[str] | None = None, **options: Any
    ) -> Any:
        given = {name: options.pop(name) for name in _OPTIONS}
        chosen: dict[str, Any] = {}
        for text in option or ():
            name, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"--option {text}: found no '='; allowed: NAME=VALUE.")
            chosen[name.strip().replace("-", "_")] = value.strip()
        chosen |= {name: value for name, value in given.items() if value is not None}
        return function(*args, launching=Launching(launcher, chosen), **options)

    signature = inspect.signature(function, eval_str=True)
    made = {"launcher": (_Launcher, "local"), "option": (_Further, None)}
    for name, (kind, words) in _OPTIONS.items():
        made[name] = (Annotated[kind | None, typer.Option(help=words)], None)
    own = [each for each in signature.parameters.values() if each.name != "launching"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in made.items()
    ]
    call.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    call.__annotations__ = {
        **{name: kind for name, kind in function.__annotations__.items() if name != "launching"},
        **{name: kind for name, (kind, _) in made.items()},
    }
    return call


def load_plugins(plugin: list[str] | None) -> tuple[str, ...]:
    from ablate.registry import load_plugin

    for source in plugin or []:
        load_plugin(source)
    return tuple(plugin or ())


@contextmanager
def transfer(what: str, unit: str = "bytes") -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar for something counted; plain lines, a tenth at a time, when the output is no terminal."""
    if not console.is_terminal:
        shown = -1

        def line(done: int, total: int | None) -> None:
            nonlocal shown
            tenth = 10 * done // total if total else done // 100_000_000
            if tenth > shown:
                shown = tenth
                print(f"{what}: {done} of {total or '?'} {unit}", flush=True)

        yield line
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
