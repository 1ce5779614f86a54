"""The commands `data ...`: look at data sets, fetch, collect, convert and check them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ablate.cli.shared import RESULTS, Plugin, Results, command, console, load_plugins, transfer
from ablate.errors import UserError

data_app = typer.Typer(
    help="Data sets: look at them, fetch, collect, convert and check them.",
    epilog="Example: python -m ablate data list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def reading(
    env: Annotated[
        str | None,
        typer.Option(
            help="Of a file of yours: the gymnasium id, of --plugin too, that it was recorded in; none: it has no "
            "simulator."
        ),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="Time limit, in steps [the environment's].")
    ] = None,
    rescale_actions: Annotated[
        bool, typer.Option("--rescale-actions", help="Put the bounds of actions to -1 and 1.")
    ] = False,
    clip_actions: Annotated[
        bool, typer.Option("--clip-actions", help="Put actions beyond [-1, 1] onto the bound.")
    ] = False,
    choices: Annotated[
        int | None, typer.Option(help="Number of choices of a discrete action.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="OURS=THEIRS, an array's name in the file, e.g. observations=observation; A+B puts two side by "
            "side; repeatable.",
        ),
    ] = None,
    terminals: Annotated[
        str | None,
        typer.Option(
            help="Where every episode ends as terminal at one length: as-is or time-limit."
        ),
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of episodes not trained on; 0: none [0.1].")
    ] = None,
    random: Annotated[float | None, typer.Option(help="The return that scores 0.")] = None,
    expert: Annotated[float | None, typer.Option(help="The return that scores 100.")] = None,
) -> dict[str, Any]:
    """What the options say of how a file is read, keys of `ablate.data.reading.Reading`."""
    from ablate.data.reading import checked

    renamed: dict[str, str] = {}
    for text in map_ or []:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not equals or not ours or not theirs:
            raise UserError(f"--map {text}: expected OURS=THEIRS, e.g. observations=observation.")
        renamed[ours] = theirs
    said = {
        "environment": env,
        "horizon": horizon,
        "rescale_actions": rescale_actions or None,
        "clip_actions": clip_actions or None,
        "choices": choices,
        "map": renamed or None,
        "terminals": terminals,
        "held_out": held_out,
        "random": random,
        "expert": expert,
    }
    return checked({name: value for name, value in said.items() if value is not None}).said


def reads(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of `reading`; what they say is its argument `reading`."""
    own, options = (inspect.signature(each, eval_str=True) for each in (function, reading))

    @wraps(function)
    def call(**given: Any) -> Any:
        said = {name: given.pop(name) for name in options.parameters}
        return function(**given, reading=reading(**said))

    parameters = [
        *(each for name, each in own.parameters.items() if name != "reading"),
        *(each.replace(kind=each.KEYWORD_ONLY) for each in options.parameters.values()),
    ]
    call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


@data_app.command("list", epilog="Example: python -m ablate data list")
@command
def data_list(plugin: Plugin = None) -> int:
    """All data sets that can be named in a study file."""
    from ablate.data.catalogue import known_names
    from ablate.data.hidden import GRAMMAR

    load_plugins(plugin)
    for name in known_names():
        print(name)
    print(
        f"Any of them can hide a part of the state, as NAME@TWIN: {GRAMMAR}.\n"
        "Your own files: file/PATH. D4RL's and Minari's: see `data fetch`.",
        file=sys.stderr,
    )
    return 0


@data_app.command("show", epilog="Example: python -m ablate data show lq-mix/episode")
@command
@reads
def data_show(
    name: str,
    reading: dict[str, Any],
    dose: Annotated[
        bool, typer.Option(help="Measure what the past tells about the next state and action.")
    ] = True,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """A data set's card: where it comes from, its returns, its policies, and how much memory can tell."""
    from ablate.data.card import card
    from ablate.data.catalogue import load
    from ablate.launch.run import cache_folder

    load_plugins(plugin)
    for section in card(load(name, cache_folder(results), reading), dose):
        table = Table(title=section.title, title_justify="left", show_header=any(section.columns))
        for column in section.columns:
            table.add_column(column)
        for row in section.rows:
            table.add_row(*row)
        console.print(table)
    return 0


@data_app.command("fetch", epilog="Example: python -m ablate data fetch d4rl/hopper-medium-v2")
@command
def data_fetch(
    names: Annotated[list[str], typer.Argument(help="d4rl/ID or minari/ID; several at once.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Where files lie [$D4RL_DATASET_DIR, $MINARI_DATASETS_PATH]."),
    ] = None,
) -> int:
    """Download data sets, going on where an earlier attempt stopped; size and checksum are checked."""
    from ablate.data.fetch import fetch

    for name in names:
        with transfer(name) as progress:
            path = fetch(name, folder, progress)
        print(f"{name}: {path}")
    return 0


@data_app.command(
    "collect",
    epilog="Example: python -m ablate data collect --policy sb3:ppo.zip --env Hopper-v4 --steps 100000 --out my.hdf5",
)
@command
def data_collect(
    name: Annotated[str, typer.Argument(help="A data set to generate into the cache.")] = "",
    policy: Annotated[str, typer.Option(help="A policy of yours: sb3:FILE.zip.")] = "",
    env: Annotated[str, typer.Option(help="The gymnasium environment it acts in.")] = "",
    horizon: Annotated[
        int | None, typer.Option(help="Time limit, in steps [the environment's].")
    ] = None,
    steps: Annotated[int, typer.Option(help="Transitions; whole episodes are kept.")] = 100_000,
    out: Annotated[Path | None, typer.Option(help="Where the data go.")] = None,
    format: Annotated[str, typer.Option(help="hdf5, minari or pickle.")] = "hdf5",
    normaliser: Annotated[
        Path | None, typer.Option(help="VecNormalize file of the policy's training.")
    ] = None,
    deterministic: Annotated[bool, typer.Option(help="Act by the policy's mode.")] = False,
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="Unpickle the policy, for one that is code: runs whatever the file holds.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of episodes and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Generate a data set of the catalogue, or collect one with a stable-baselines3 policy of yours."""
    from ablate.data import commands
    from ablate.data.catalogue import load
    from ablate.launch.run import cache_folder

    load_plugins(plugin)
    if bool(name) == bool(policy):
        raise UserError("data collect: give either the name of a data set or --policy.")
    if name:
        data = load(name, cache_folder(results))
        print(f"{name}: {data.train.num_episodes} episodes, {len(data.train.rewards)} timesteps.")
        return 0
    if not env or out is None:
        raise UserError("data collect: --policy needs --env and --out.")
    if trust_code:
        print(f"{policy}: {commands.TRUSTED}", file=sys.stderr)
    with transfer("collecting", unit="steps") as progress:
        made = commands.collect_with(
            policy,
            env,
            steps,
            out,
            horizon=horizon,
            format=format,
            normaliser=normaliser,
            deterministic=deterministic,
            trust_code=trust_code,
            seed=seed,
            overwrite=overwrite,
            progress=lambda done: progress(done, steps),
        )
    print(f"{out}: {made.num_episodes} episodes, {len(made.rewards)} timesteps.")
    print(f"In a study file: file/{out}")
    return 0


@data_app.command(
    "convert",
    epilog="Example: python -m ablate data convert mujoco/hopper/medium-v0 hopper-medium-v0 --format minari",
)
@command
@reads
def data_convert(
    source: Annotated[str, typer.Argument(help="A data set of the catalogue, a file or a folder.")],
    target: Annotated[Path, typer.Argument(help="The file, or for Minari the folder, to write.")],
    reading: dict[str, Any],
    format: Annotated[str, typer.Option(help="hdf5, minari or pickle.")] = "hdf5",
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Write any data set as D4RL-style HDF5, as a Minari folder, or as a Decision Transformer pickle."""
    from ablate.data.commands import convert
    from ablate.launch.run import cache_folder

    load_plugins(plugin)
    for remark in convert(source, target, format, cache_folder(results), overwrite, reading):
        print(f"note: {remark}")
    print(f"{target}: written.")
    return 0


@data_app.command("check", epilog="Example: python -m ablate data check my.hdf5")
@command
@reads
def data_check(
    paths: Annotated[list[Path], typer.Argument(help="Files or Minari folders.")],
    reading: dict[str, Any],
    plugin: Plugin = None,
) -> int:
    """What is in a file, and whether it can be used; exit code 1 when one can't."""
    from ablate.data.formats.files import check
    from ablate.data.reading import checked

    load_plugins(plugin)
    bad = 0
    for path in paths:
        lines = check(path, checked(reading))
        print("\n  ".join(lines))
        bad += lines[-1].startswith("problem")
    return 1 if bad else 0
