"""The commands of studies, of single models and of this machine; those of data stand in `data`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperCommand

from ablate import __version__
from ablate.cli.data import data_app, reads
from ablate.cli.shared import (
    RESULTS,
    Launching,
    Plugin,
    Results,
    any_encoding,
    command,
    console,
    launching,
    load_plugins,
    transfer,
)
from ablate.errors import UserError
from ablate.study import shipped

app = typer.Typer(
    help="Controlled ablations of sequence modelling in offline RL: memory, architecture or objective?",
    epilog="Example: python -m ablate run studies/memory_vs_arch.yaml --profile quick",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        print(f"ablate {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    pass


def _found(study: Path | None) -> Path | None:
    """The study file that an argument names, be it one that comes with `ablate`; says so where it isn't as given."""
    if study is None or (found := shipped.find(study)) == study:
        return study
    print(f"note: there is no file {study} here; taken: {found}", file=sys.stderr)
    return found


StudyFile = Annotated[
    Path,
    typer.Argument(
        callback=_found,
        help="The study file, or the name of one that comes with ablate, e.g. memory_vs_arch.",
    ),
]
Profile = Annotated[str | None, typer.Option(help="Profile of the study file [standard].")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override, e.g. --set train.updates=1000; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print records as JSON.")]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds; short for --set seeds=N.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes [one a core].")]


def _study(study: Path, profile: str | None, overrides: list[str] | None, seeds: int | None) -> Any:
    from ablate.study.load import load

    texts = list(overrides or [])
    if seeds is not None:
        texts.append(f"seeds={seeds}")
    return load(study, profile, texts)


def _plugins(plugin: list[str] | None, study: Path, results: Path) -> None:
    """Load the named plugins, or those with which the study was run last."""
    load_plugins(_of_study(plugin, study, results))


def _of_study(plugin: list[str] | None, study: Path, results: Path) -> list[str]:
    """The named plugins, or those with which the study was run last."""
    from ablate.study.source import read
    from ablate.track import kept

    if plugin:
        return plugin
    name = read(study).tree.get("study")
    return kept.plugins(results, name) if isinstance(name, str) else []


@app.command(epilog="Example: python -m ablate run studies/memory_vs_arch.yaml --profile quick")
@command
@launching
def run(
    study: StudyFile,
    launching: Launching,
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
    from ablate.launch.worker import ONE_THREAD

    # Before anything that computes is imported: workers are copies of this process.
    os.environ.update(ONE_THREAD)

    from ablate.launch import standing
    from ablate.launch.run import Options
    from ablate.launch.run import run as run_study
    from ablate.study.entries import FILE
    from ablate.track.folder import folder_of

    plugins = load_plugins(plugin)
    loaded = _study(study, profile, set_, seeds)
    options = Options(
        results=results,
        workers=workers or os.cpu_count() or 1,
        launcher=launching.name,
        launching=launching.options,
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
        from ablate.launch.replicate import replicate

        summary = replicate(loaded, options, console, last, times=replications)
    elif until_decided:
        from ablate.launch.decided import until_decided as run_looks

        summary = run_looks(loaded, options, console, last)
    else:
        summary = run_study(loaded, options, console, last)
    console.print(
        f"{summary.completed} of {summary.total} trials completed, {summary.failed} failed, "
        f"{summary.missing} without a result. Table: {folder_of(results, loaded).table}",
        highlight=False,
    )
    if seeds is None:
        standing.enrol(loaded, study, profile, set_ or [], plugins, results)
    if any(name.startswith(FILE) for name in loaded.used) and summary.completed:
        from ablate.analyse.tidy import unmeasured
        from ablate.track.table import read_table

        for line in unmeasured(read_table(folder_of(results, loaded).table)):
            console.print(f"note: {line}", highlight=False)
    if summary.failed:
        console.print("Failed trials are listed in the table; --retry-failed runs them again.")
    if not summary.missing:
        console.print("Next: python -m ablate report")
    return 1 if summary.missing else 0


@app.command(epilog="Example: python -m ablate report --check")
@command
def report(
    study: Annotated[
        Path | None,
        typer.Argument(callback=_found, help="The study file [all that have results]."),
    ] = None,
    study_: Annotated[
        Path | None,
        typer.Option("--study", callback=_found, help="The study file, as an option."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Runs from elsewhere: a .csv, a .parquet, rliable's matrices (.npz, .json), or a Sacred file "
            "store's folder."
        ),
    ] = None,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            help="Of a table: runs of one seed share something, such as their evaluation episodes.",
        ),
    ] = False,
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
    from ablate.report import commands as room

    named = study_ if study is None else study
    if calibrate:
        from ablate.launch import design

        load_plugins(plugin)
        named = named or Path(room.last_run(results)["study"])
        print(design.calibration(named, results, table=table).text())
        return 0
    load_plugins(plugin)
    asked = None
    chosen = any(option is not None for option in (profile, set_, seeds))
    if paired and table is None:
        raise UserError(
            "report --paired: that is for a table of runs from elsewhere: --table FILE."
        )
    if table is not None:
        if named is None:
            raise UserError(
                "report --table: name the study that says how to read it: --study FILE."
            )
        if chosen:
            raise UserError("report --table: --profile, --set and --seeds are for runs of our own.")
        asked = room.elsewhere(named, table, results, paired)
    elif named is not None or chosen:
        file = named or Path(room.last_run(results)["study"])
        room.refuse_foreign(file)
        _plugins(plugin, file, results)
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


@app.command(epilog="Example: python -m ablate export studies/loss.yaml --format parquet")
@command
def export(
    study: StudyFile,
    format_: Annotated[
        str, typer.Option("--format", help="parquet (tables) or tensorboard (learning curves).")
    ] = "parquet",
    to: Annotated[
        Path | None, typer.Option(help="The folder to write into [export/STUDY].")
    ] = None,
    profile: Profile = None,
    set_: Set = None,
    seeds: Seeds = None,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """A study's tables, verdicts too, as parquet files, or its learning curves for TensorBoard."""
    from ablate.report import commands as room
    from ablate.report.export import export as write

    room.refuse_foreign(study)
    _plugins(plugin, study, results)
    found = room.ours(_study(study, profile, set_, seeds), results)
    assert found.folder is not None
    into = to or Path("export", found.folder.relative_to(results))
    written = write(found, format_, into)
    print(f"{into}: {len(written)} {'tables' if format_ == 'parquet' else 'fits'} written.")
    return 0


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

    load_plugins(plugin)
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
@launching
def plan(
    study: StudyFile,
    launching: Launching,
    profile: Profile = None,
    set_: Set = None,
    seeds: Seeds = None,
    workers: Workers = None,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Cells, trials, matched sizes, what the fraction can tell, and the cost, without running anything."""
    from ablate.launch.planning import describe, foretold

    _plugins(plugin, study, results)
    loaded = _study(study, profile, set_, seeds)
    print(describe(loaded, results, workers or os.cpu_count() or 1))
    for line in foretold(loaded, results, launching.name, launching.options):
        print(line)
    return 0


@app.command(epilog="Example: python -m ablate status studies/memory_vs_arch.yaml")
@command
def status(
    study: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    as_json: Json = False,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Fits and trials that have a result, of how many; attempts that failed or died are listed."""
    from ablate.launch import standing

    plugins = _of_study(plugin, study, results)
    found = standing.asked(study, profile, set_ or [], plugins, results)
    print(json.dumps(found.record(), indent=1) if as_json else found.text())
    return 0


@app.command(epilog="Example: python -m ablate reference --plugin examples/ema.py")
@command
def reference(plugin: Plugin = None) -> int:
    """Every key of a study file and every part that it may name, as a page of Markdown; your own parts too."""
    from ablate.study import reference as page

    load_plugins(plugin)
    print(page.render(), end="")
    return 0


@app.command(epilog="Example: python -m ablate watch studies/memory_vs_arch.yaml")
@command
def watch(
    study: StudyFile,
    profile: Profile = None,
    set_: Set = None,
    seeds: Seeds = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of this machine; 0 takes one that is free.")
    ] = 0,
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """A live page of a study while it runs: cells, curves, time left, failures, a peek at the verdicts."""
    from ablate.report import live

    _plugins(plugin, study, results)
    found = live.Live(_study(study, profile, set_, seeds), results)
    live.serve(
        found, port, lambda address: print(f"Look at {address} (Ctrl-C ends it).", flush=True)
    )
    return 0


class _WithPresets(TyperCommand):
    """Lists the presets below the options."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from ablate.study import presets

        with formatter.section("Presets"):
            formatter.write_dl([(name, presets.about(name)) for name in presets.names()])
        super().format_epilog(ctx, formatter)


@app.command(
    cls=_WithPresets,
    epilog="Example: python -m ablate train --preset dt --data mujoco/hopper/medium-v0 --seed 0",
)
@command
@reads
def train(
    preset: Annotated[
        str, typer.Option(help="A published method, listed below, or a .yaml file like theirs.")
    ],
    data: Annotated[str, typer.Option(help="A data set of `data list`, or file/PATH.")],
    reading: dict[str, Any],
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is random.")] = 0,
    set_: Set = None,
    device: Annotated[str, typer.Option(help="Where it trains and acts: cpu, cuda.")] = "cpu",
    plugin: Plugin = None,
    results: Results = RESULTS,
) -> int:
    """Train one model by a preset, without a study; the same command goes on after an interruption."""
    from ablate.launch import single
    from ablate.launch.run import cache_folder
    from ablate.study import presets

    load_plugins(plugin)
    config = presets.configuration(preset, data, set_ or [], {"reading": reading})
    with transfer(f"{preset} on {data}", unit="per mille") as progress:
        made = single.train(
            config,
            seed,
            results,
            cache_folder(results),
            device=device,
            report=lambda fraction, text: progress(round(1000 * fraction), 1000),
            note=lambda line: print(f"note: {line}", file=sys.stderr),
        )
    if made.known:
        print("It was trained before; nothing was run.")
    for line in single.lines(made):
        print(line)
    if not made.remark:
        print(f"Next: python -m ablate evaluate {made.checkpoint}")
    return 0


@app.command(
    epilog="Example: python -m ablate evaluate results/models/checkpoints/0123456789ab --target 3600"
)
@command
@reads
def evaluate(
    run: Annotated[Path, typer.Argument(help="The checkpoint that `train` named, or its folder.")],
    reading: dict[str, Any],
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

    load_plugins(plugin)
    scores = single.evaluate(
        run,
        cache_folder(results),
        target or [],
        episodes,
        set_ or [],
        reading=reading,
        device=device,
        video=video,
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
    as_json: Json = False,
    plugin: Plugin = None,
) -> int:
    """Which lags, rows and conditions a model depends on, as trained and as acting; refuses what leaks."""
    from ablate.audit.audit import audit_config

    load_plugins(plugin)
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
        typer.Argument(
            help="update, cohort, data, acting, memory, planner, scale or inference [all]."
        ),
    ] = "",
    table: Annotated[
        Path | None,
        typer.Option(help="For inference: real runs (.csv with data, seed, score) to split."),
    ] = None,
    peer: Annotated[
        Path | None,
        typer.Option(
            help="For update: your checkout of kzl/decision-transformer, CORL or trajectory-transformer;"
            " for planner: of the last. Its code is run."
        ),
    ] = None,
) -> int:
    """Speed on this machine as ratios, and the error rates of the statistics by simulation."""
    from ablate.bench.table import show

    show(console, part, table, peer)
    return 0


# The error of a wrong command line, of whichever click typer brings along.
MISUSE: type[Exception] = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ablate` and `python -m ablate`; raises SystemExit with the exit code.

    SIGTERM is heard like Ctrl-C.
    """
    any_encoding()
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
