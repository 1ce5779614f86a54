"""What every command shares: how errors become one line, a bar for long work, options that several have."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ablate.errors import UserError

console = Console(soft_wrap=True)

Plugin = Annotated[
    list[str] | None,
    typer.Option(help="FILE.py or module with parts of your own; repeatable."),
]
Results = Annotated[Path, typer.Option(help="Where results lie, one folder a study.")]
Debug = Annotated[bool, typer.Option(help="Show the trace of an error.")]
RESULTS = Path("results")


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
        except KeyboardInterrupt:
            print(
                "ablate: stopped; what is finished is kept. The same command goes on from here.",
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
