"""The commands; each is a few lines, what they call lies in the rooms."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperCommand

from ablate.errors import UserError

app = typer.Typer(
    help="Controlled ablations of sequence modelling in offline RL: memory, architecture or objective?",
    epilog="Example: python -m ablate run studies/memory_vs_arch.yaml --profile quick",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(
    help="Data sets: look at them, fetch, collect, convert and check them.",
    epilog="Example: python -m ablate data list",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")
console = Console(soft_wrap=True)

StudyFile = Annotated[
    Path, typer.Argument(help="The study file, e.g. studies/memory_vs_arch.yaml.")
]
Profile = Annotated[str | None, typer.Option(help="Profile of the study file [standard].")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override, e.g. --set train.updates=1000; repeatable."),
]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds; short for --set seeds=N.")]
Plugin = Annotated[
    list[str] | None,
    typer.Option(help="FILE.py or module with parts of your own; repeatable."),
]
Results = Annotated[Path, typer.Option(help="Where results lie, one folder a study.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes [one a core].")]
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
    import inspect

    signature = inspect.signature(function, eval_str=True)
    debug = inspect.Parameter(
        "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
    )
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), debug]
    )
    call.__annotations__ = {**function.__annotations__, "debug": Debug}
    return call


def _plugins(plugin: list[str] | None) -> tuple[str, ...]:
    from ablate.registry import load_plugin

    for source in plugin or []:
        load_plugin(source)
    return tuple(plugin or ())


def _study(study: Path, profile: str | None, overrides: list[str] | None, seeds: int | None) -> Any:
    from ablate.study.load import load

    texts = list(overrides or [])
    if seeds is not None:
        texts.append(f"seeds={seeds}")
    return load(study, profile, texts)


@app.command(epilog="Example: python -m ablate run studies/memory_vs_arch.yaml --profile quick")
@command
def run(
    study: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    seeds: Seeds = None,
    only: Annotated[str, typer.Option(help="Part of the cells, e.g. mixer=gru,context=20.")] = "",
    workers: Workers = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed trials again.")] = False,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Add seeds in the declared looks until the primary hypotheses are decided.",
        ),
    ] = False,
    replications: Annotated[
        int | None,
        typer.Option(min=2, help="Run it this often, each time with all streams redrawn."),
    ] = None,
    launcher: Annotated[str, typer.Option(help="Who runs the cohorts.")] = "local",
    device: Annotated[
        str, typer.Option(help="Where cohorts train and act: cpu, cuda, cuda:1.")
    ] = "cpu",
    observer: Annotated[
        list[str] | None,
        typer.Option(help="A further Sacred observer, mongo://... or sqlite:///..."),
    ] = None,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Run whatever of a study has no result yet; the same command goes on after an interruption."""
    from ablate.launch.decided import until_decided as run_looks
    from ablate.launch.replicate import replicate
    from ablate.launch.run import Options
    from ablate.launch.run import run as run_study
    from ablate.track.folder import folder_of

    plugins = _plugins(plugin)
    loaded = _study(study, profile, set_, seeds)
    options = Options(
        results=results,
        workers=workers or os.cpu_count() or 1,
        launcher=launcher,
        device=device,
        plugins=plugins,
        observers=tuple(observer or ()),
        retry_failed=retry_failed,
        only=only,
    )
    last = {
        "study": str(study),
        "profile": profile,
        "set": set_ or [],
        "seeds": seeds,
        "plugins": plugins,
    }
    if replications is not None:
        summary = replicate(loaded, options, console, last, times=replications)
    else:
        summary = (run_looks if until_decided else run_study)(loaded, options, console, last)
    console.print(
        f"{summary.completed} of {summary.total} trials completed, {summary.failed} failed, "
        f"{summary.missing} without a result. Table: {folder_of(results, loaded).table}",
        highlight=False,
    )
    if summary.failed:
        console.print("Failed trials are listed in the table; --retry-failed runs them again.")
    if not summary.missing:
        console.print("Next: python -m ablate report")
    return 1 if summary.missing else 0


@app.command(epilog="Example: python -m ablate report --check")
@command
def report(
    study: Annotated[
        Path | None, typer.Argument(help="The study file [all that have results].")
    ] = None,
    study_: Annotated[
        Path | None, typer.Option("--study", help="The study file, as an option.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Runs from elsewhere: a .csv, a .parquet, or a Sacred file store's folder."
        ),
    ] = None,
    profile: Profile = None,
    set_: Set = None,
    seeds: Seeds = None,
    venue: Annotated[
        str | None,
        typer.Option(
            help="Whose figure sizes: neurips2024, iclr2024, icml2024, tmlr2023, jmlr2001..."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only say what in the paper is stale, and which numbers in its text no macro gives.",
        ),
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Only A/A splits of the runs: false alarms of each procedure."
        ),
    ] = False,
    plugin: Plugin = None,
    results: Results = RESULTS,
    paper: Annotated[
        Path | None,
        typer.Option(
            help="Where the paper lies [paper; of another profile or a table: below its results]."
        ),
    ] = None,
) -> int:
    """Write a study's HTML page and its part of the paper, or those of all studies; print the answer."""
    from ablate.report import results as room

    named = study_ if study is None else study
    if calibrate:
        from ablate.launch import design

        _plugins(plugin)
        named = named or Path(room.last_run(results)["study"])
        print(design.calibration(named, results, table=table).text())
        return 0
    _plugins(plugin)
    asked = None
    chosen = any(option is not None for option in (profile, set_, seeds))
    if table is not None:
        if named is None:
            raise UserError(
                "report --table: name the study that says how to read it: --study FILE."
            )
        if chosen:
            raise UserError("report --table: --profile, --set and --seeds are for runs of our own.")
        asked = room.elsewhere(named, table, results)
    elif named is not None or chosen:
        file = named or Path(room.last_run(results)["study"])
        room.refuse_foreign(file)
        asked = room.ours(_study(file, profile, set_, seeds), results)
    if check:
        return _stale(room.stale(asked, results, paper))
    print(room.make(asked, results, paper, venue))
    return 0


def _stale(found: list[str]) -> int:
    """Print what is stale; the exit code."""
    for line in found:
        print(line)
    print(f"{len(found)} stale." if found else "Everything is as the results say.")
    return 1 if found else 0


@app.command(epilog="Example: python -m ablate power studies/memory_vs_arch_locomotion.yaml")
@command
def power(
    study: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    seeds: Seeds = None,
    pilot: Annotated[
        Path | None,
        typer.Option(help="A table of trials [the study's own, else published spreads]."),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(help="d3rlpy, corl-locomotion, corl-antmaze or corl-adroit."),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep power.csv and power.json.")] = False,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """What a study can detect, the seeds and data sets it needs, and what they cost, by simulation."""
    from ablate.launch import design

    _plugins(plugin)
    made = design.power(
        study,
        results,
        profile=profile,
        overrides=[*(set_ or []), *([] if seeds is None else [f"seeds={seeds}"])],
        pilot=pilot,
        published=published,
    )
    print(made.text())
    for path in design.save(made, results) if save else ():
        print(f"{path}: written.")
    return 0


@app.command(epilog="Example: python -m ablate plan studies/memory_vs_arch.yaml --profile full")
@command
def plan(
    study: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    seeds: Seeds = None,
    workers: Workers = None,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Cells, trials, matched sizes, what the fraction can tell, and the cost, without running anything."""
    from ablate.launch.planning import describe

    _plugins(plugin)
    print(describe(_study(study, profile, set_, seeds), results, workers or os.cpu_count() or 1))
    return 0


@app.command(epilog="Example: python -m ablate status studies/memory_vs_arch.yaml")
@command
def status(
    study: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Fits and trials that have a result; attempts that failed or died are listed."""
    from ablate.launch.standing import describe

    _plugins(plugin)
    print(describe(_study(study, profile, set_, None), results))
    return 0


class _WithPresets(TyperCommand):
    """Lists the presets below the options."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from ablate import presets

        with formatter.section("Presets"):
            formatter.write_dl([(name, presets.about(name)) for name in presets.names()])
        super().format_epilog(ctx, formatter)


@app.command(
    cls=_WithPresets,
    epilog="Example: python -m ablate train --preset dt --data mujoco/hopper/medium-v0 --seed 0",
)
@command
def train(
    preset: Annotated[
        str, typer.Option(help="A published method, listed below, or a .yaml file like theirs.")
    ],
    data: Annotated[str, typer.Option(help="A data set of `data list`.")],
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is random.")] = 0,
    set_: Set = None,
    device: Annotated[str, typer.Option(help="Where it trains and acts: cpu, cuda.")] = "cpu",
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Train one model by a preset, without a study; the same command goes on after an interruption."""
    from ablate import presets
    from ablate.launch import single
    from ablate.launch.run import cache_folder

    _plugins(plugin)
    config = presets.configuration(preset, data, set_ or [])
    with transfer(f"{preset} on {data}", unit="per mille") as progress:
        made = single.train(
            config,
            seed,
            results,
            cache_folder(results),
            device=device,
            report=lambda fraction, text: progress(round(1000 * fraction), 1000),
        )
    if made.known:
        print("It was trained before; nothing was run.")
    for line in single.lines(made):
        print(line)
    print(f"Next: python -m ablate evaluate {made.checkpoint}")
    return 0


@app.command(
    epilog="Example: python -m ablate evaluate results/models/checkpoints/0123456789ab --target 3600"
)
@command
def evaluate(
    run: Annotated[Path, typer.Argument(help="The checkpoint that `train` named, or its folder.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="Return to ask for, a number or p90; repeatable [as trained]."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1)] = 100,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Of the evaluation, e.g. --set context=5; repeatable."),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Film the first episode: FILE.gif or FILE.mp4.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it acts: cpu, cuda.")] = "cpu",
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Let a trained model act, asked for one return or several: returns, normalised scores, intervals."""
    from ablate.launch import single
    from ablate.launch.run import cache_folder

    _plugins(plugin)
    scores = single.evaluate(
        run, cache_folder(results), target or [], episodes, set_ or [], device=device, video=video
    )
    table = Table()
    for column in single.COLUMNS:
        table.add_column(column, justify="right")
    for score in scores:
        table.add_row(*score.row())
    console.print(table)
    if video is not None:
        print(f"{video}: written.")
    return 0


@app.command(epilog="Example: python -m ablate audit attention lstm --context 20")
@command
def audit(
    models: Annotated[list[str], typer.Argument(help="Registered mixers.")],
    context: Annotated[int, typer.Option(help="K, timesteps.")] = 5,
    history: Annotated[str, typer.Option(help="What of the past is shown.")] = "states+actions",
    condition: Annotated[str, typer.Option(help="What the policy is told.")] = "return-to-go+time",
    head: Annotated[str, typer.Option(help="The distribution of the action.")] = "mse",
    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON.")] = False,
    plugin: Plugin = None,
) -> int:
    """Which lags, rows and conditions a model depends on, as trained and as acting; refuses what leaks."""
    from ablate.audit.audit import audit_config

    _plugins(plugin)
    results = [audit_config(name, context, history, condition, head) for name in models]
    for result in results:
        print(json.dumps(result.record()) if as_json else result.text() + "\n")
    bad = [result.mixer for result in results if not result.passed]
    if bad:
        raise UserError(
            f"audit: refused: {', '.join(map(str, bad))}; a trial of such a model doesn't train."
        )
    return 0


@app.command(epilog="Example: python -m ablate bench update")
@command
def bench(
    part: Annotated[
        str,
        typer.Argument(help="update, cohort, data, acting, memory, planner or inference [all]."),
    ] = "",
    table: Annotated[
        Path | None,
        typer.Option(help="For inference: real runs (.csv with data, seed, score) to split."),
    ] = None,
) -> int:
    """Speed on this machine as ratios, and the error rates of the statistics by simulation."""
    from ablate.bench.table import show

    show(console, part, table)
    return 0


@data_app.command("list", epilog="Example: python -m ablate data list")
@command
def data_list(plugin: Plugin = None) -> int:
    """All data sets that can be named in a study file."""
    from ablate.data.catalogue import known_names
    from ablate.data.hidden import GRAMMAR

    _plugins(plugin)
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
def data_show(
    name: str,
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

    _plugins(plugin)
    for section in card(load(name, cache_folder(results)), dose):
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
    steps: Annotated[int, typer.Option(help="Transitions; whole episodes are kept.")] = 100_000,
    out: Annotated[Path | None, typer.Option(help="Where the data go.")] = None,
    format: Annotated[str, typer.Option(help="hdf5, minari or pickle.")] = "hdf5",
    normaliser: Annotated[
        Path | None, typer.Option(help="VecNormalize file of the policy's training.")
    ] = None,
    deterministic: Annotated[bool, typer.Option(help="Act by the policy's mode.")] = False,
    seed: Annotated[int, typer.Option(help="Of episodes and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Generate a data set of the catalogue, or collect one with a stable-baselines3 policy of yours."""
    from ablate.data import commands
    from ablate.data.catalogue import load
    from ablate.launch.run import cache_folder

    _plugins(plugin)
    if bool(name) == bool(policy):
        raise UserError("data collect: give either the name of a data set or --policy.")
    if name:
        data = load(name, cache_folder(results))
        print(f"{name}: {data.train.num_episodes} episodes, {len(data.train.rewards)} timesteps.")
        return 0
    if not env or out is None:
        raise UserError("data collect: --policy needs --env and --out.")
    with transfer("collecting", unit="steps") as progress:
        made = commands.collect_with(
            policy,
            env,
            steps,
            out,
            format=format,
            normaliser=normaliser,
            deterministic=deterministic,
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
def data_convert(
    source: Annotated[str, typer.Argument(help="A data set of the catalogue, a file or a folder.")],
    target: Annotated[Path, typer.Argument(help="The file, or for Minari the folder, to write.")],
    format: Annotated[str, typer.Option(help="hdf5, minari or pickle.")] = "hdf5",
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Write any data set as D4RL-style HDF5, as a Minari folder, or as a Decision Transformer pickle."""
    from ablate.data.commands import convert
    from ablate.launch.run import cache_folder

    _plugins(plugin)
    for remark in convert(source, target, format, cache_folder(results), overwrite):
        print(f"note: {remark}")
    print(f"{target}: written.")
    return 0


@data_app.command("check", epilog="Example: python -m ablate data check my.hdf5")
@command
def data_check(
    paths: Annotated[list[Path], typer.Argument(help="Files or Minari folders.")],
) -> int:
    """What is in a file, and whether it can be used; exit code 1 when one can't."""
    from ablate.data.formats.files import check

    bad = 0
    for path in paths:
        lines = check(path)
        print("\n  ".join(lines))
        bad += lines[-1].startswith("problem")
    return 1 if bad else 0


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


# The error of a wrong command line, of whichever click typer brings along.
MISUSE: type[Exception] = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ablate` and `python -m ablate`; raises SystemExit with the exit code.

    SIGTERM is heard like Ctrl-C.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(arguments, prog_name="ablate", standalone_mode=False)
    except MISUSE as error:
        text = error.format_message()  # type: ignore[attr-defined]
        # Without any command it is the whole help.
        more = "" if "\n" in text else " (--help shows what there is)"
        print(text if not more else f"ablate: {text}{more}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    raise SystemExit(code)
