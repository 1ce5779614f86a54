"""From what a file says to a `Study`: every level is looked up, and a refusal names file and
line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ablate import registry
from ablate.config import FACTORS, OPTIONAL, SECTIONS, no_context
from ablate.errors import UserError, quoted
from ablate.registry import Section
from ablate.study import presets
from ablate.study.contrast import Level, find_level, level_text
from ablate.study.entries import entries
from ablate.study.hypotheses import Hypothesis
from ablate.study.looks import SequentialSection
from ablate.study.schema import Design, File, Study
from ablate.study.source import Key, Source
from ablate.study.tuning import TuneSection
from ablate.words import response

_CHUNK = re.compile(r"chunk-[1-9]\d{0,4}")  # chunks of so many dimensions

# A study that doesn't vary these needn't list them.
_DEFAULTS = {"condition": "none", "history": "states+actions", "head": "mse"}


def resolve(source: Source, profile: str, profiles: tuple[str, ...]) -> Study:
    """The study that a file with its profile laid over it describes: its shape first, then its
    levels.

    Raises UserError with file and line of whatever is wrong.
    """
    names, readings = entries(source)
    try:
        file = File.model_validate(_shape(source.tree) | ({"data": names} if names else {}))
    except ValidationError as error:
        raise _refusal(source, error) from None
    factors = {name: _declared(source, name, levels) for name, levels in file.factors.items()}
    # A preset says everything; what else a study declares is laid over it.
    for name in FACTORS if "preset" not in factors else ():
        if name not in factors:
            if name not in _DEFAULTS:
                raise source.refuse(
                    ("factors",), f"the factor '{name}' is missing; list its levels, even if one."
                )
            factors[name] = (_DEFAULTS[name],)
    no_repeats(source, ("data",), "data set", file.data)
    designs = {
        name: _design(source, name, raw, factors, file.data, list(file.designs))
        for name, raw in file.designs.items()
    }
    study = Study(
        study=file.study,
        profile=profile,
        profiles=profiles,
        question=" ".join(file.question.split()),
        factors=factors,
        data=tuple(file.data),
        readings=readings,
        designs=designs,
        model=file.model,
        train=file.train,
        measure=_measurements(source, file.measure),
        settings=_settings(source, file.settings),
        presets=_presets(source, file, factors),
        seeds=file.seeds,
        margin=file.margin,
        alpha=file.alpha,
        hypotheses=tuple(file.hypotheses),
        sequential=file.sequential,
        notes=tuple(" ".join(note.split()) for note in file.notes),
        exploratory=" ".join(file.exploratory.split()).rstrip("."),
        figures=_figures(source, file.figures),
        tune=_tune(source, file.tune, factors),
        streams=file.streams or file.study,
        file=Path(source.file),
        code=code_files(source),
    )
    named = tuple(
        filled(_qualified(source, study, h, ("hypotheses", index)), file.margin)
        for index, h in enumerate(file.hypotheses)
    )
    return study.model_copy(update={"hypotheses": named, "notes": (*study.notes, *study.remarks)})


def _tune(
    source: Source, found: TuneSection | None, factors: dict[str, tuple[Level, ...]]
) -> TuneSection | None:
    """The tuning's arms are factors of the study, and its space are settings that no factor varies."""
    if found is None:
        return None
    for index, name in enumerate(found.per):
        if name not in ("data", *factors):
            raise source.unknown(("tune", "per", index), "the factor", name, ("data", *factors))
    for path in found.space:
        key: Key = ("tune", "space", path)
        section, _, field = path.partition(".")
        if path in factors:
            raise source.refuse(key, f"'{path}' is a factor of the study, so it can't be tuned.")
        if section == "settings":
            _settings_levels(source, key, field, [draw[path] for draw in found.settings()])
        elif section in SECTIONS and field in SECTIONS[section].model_fields:
            _valid_levels(
                source, key, SECTIONS[section], field, [d[path] for d in found.settings()]
            )
        else:
            known = [f"{s}.{f}" for s, model in SECTIONS.items() for f in model.model_fields]
            raise source.unknown(key, "the setting", path, known)
    return found


def _figures(source: Source, names: Sequence[str]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        known = registry.names(
            "figure"
        )  # asked where one is named: they bring the drawing library along
        if name not in known:
            raise source.unknown(("figures", index), "the figure", name, known)
    return tuple(names)


def _measurements(source: Source, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the study says of each measurement, checked by the measurement."""
    for name, values in found.items():
        known = registry.names("measurement")
        if name not in known:
            raise source.unknown(("measure", name), "the measurement", name, known)
        options: type[Section] = registry.get("measurement", name).Options
        try:
            options.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key: Key = ("measure", name, *problem["loc"])
            if problem["type"] == "extra_forbidden":
                raise source.unknown(
                    key, f"the measurement '{name}' has no option", key[-1], options.model_fields
                ) from None
            raise source.refuse(
                key, f"{'.'.join(map(str, key))}: {found_in(problem)}{said(problem)}."
            ) from None
    return found


def _qualified(source: Source, study: Study, hypothesis: Hypothesis, key: Key) -> Hypothesis:
    """The hypothesis with its metric named in full: `score` becomes `rollout.score`.

    A response over an index may be taken at one of its values (`open-loop.error@5`).
    """
    name, at, where = hypothesis.metric.partition("@")
    known = study.responses
    named = [n for n in known if n == name] or [n for n in known if n.rpartition(".")[2] == name]
    here = (*key, "metric")
    if not named:
        _unmeasured(source, study, here, name)
        raise source.unknown(here, "the metric", hypothesis.metric, known)
    if len(named) > 1:
        raise source.refuse(
            here,
            f"the metric '{name}' is given by several measurements: {', '.join(named)}; name one in full.",
        )
    index = response(named[0]).index
    if bool(index) != bool(at):
        wanted = f"{named[0]}@VALUE, as it runs over {index}" if index else named[0]
        raise source.refuse(here, f"the metric '{hypothesis.metric}': allowed: {wanted}.")
    return hypothesis.model_copy(update={"metric": named[0] + at + where})


def _unmeasured(source: Source, study: Study, key: Key, metric: str) -> None:
    """Refuse a metric that is of acting, where nothing can act."""
    for part in registry.parts("measurement"):
        given = {r.name for r in part.value.responses} | {
            f"{part.name}.{r.name}" for r in part.value.responses
        }
        if part.value.acts and metric in given and study.lacking:
            raise source.refuse(key, f"the metric '{metric}' can't be had. {study.remarks[0]}")


def _presets(
    source: Source, file: File, factors: dict[str, tuple[Level, ...]]
) -> dict[str, dict[str, Any]]:
    """What the study changes of its presets; each still makes a configuration on every data set."""
    for name in file.presets:
        if name not in factors.get("preset", ()):
            raise source.unknown(("presets", name), "the preset", name, factors.get("preset", ()))
    for name in map(str, factors.get("preset", ())):
        for data in file.data:
            try:
                presets.configuration(
                    name,
                    data,
                    changes=file.presets.get(name),
                    folder=Path(source.file).parent,
                )
            except UserError as error:
                raise source.refuse(("presets", name), str(error)) from None
    return file.presets


def _settings(source: Source, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The algorithms' hyper-parameters, each checked by its algorithm."""
    for name, values in found.items():
        known = registry.names("algorithm")
        if name not in known:
            raise source.unknown(("settings", name), "the algorithm", name, known)
        try:
            registry.get("algorithm", name).Settings.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key: Key = ("settings", name, *problem["loc"])
            if problem["type"] == "extra_forbidden":
                fields = registry.get("algorithm", name).Settings.model_fields
                raise source.unknown(
                    key, f"the algorithm '{name}' has no setting", key[-1], fields
                ) from None
            raise source.refuse(
                key, f"{'.'.join(map(str, key))}: {found_in(problem)}{said(problem)}."
            ) from None
    return found


def filled(hypothesis: Hypothesis, margin: float | None) -> Hypothesis:
    """With the study's margin (normalised points) and the family by rank where none is given."""
    changes: dict[str, Any] = {"says": " ".join(hypothesis.says.split())}
    # What an estimator gives (a ratio, an offset) is not in the metric's unit: it has no margin but its own.
    points = response(hypothesis.metric).points and hypothesis.estimator is None
    if hypothesis.margin is None and points:
        changes["margin"] = margin
    if not hypothesis.family:
        changes["family"] = "primary" if hypothesis.primary else "secondary"
    return hypothesis.model_copy(update=changes)


def no_repeats(source: Source, key: Key, what: str, values: Sequence[object]) -> None:
    """Refuse a value that stands twice in the list at `key`."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if (text := level_text(value)) in seen:
            raise source.refuse((*key, index), f"the {what} {quoted(value)} stands twice.")
        seen.add(text)


def _declared(source: Source, name: str, levels: list[Level]) -> tuple[Level, ...]:
    """The levels of a factor, each of the factor's own type."""
    key: Key = ("factors", name)
    if not levels:
        raise source.refuse(key, f"the factor '{name}' has no levels.")
    no_repeats(source, key, f"level of {name}", levels)
    if name == "context":
        whole = [int(x) if isinstance(x, float) and x == int(x) else x for x in levels]
        for index, level in enumerate(whole):
            if (problem := no_context(level)) is not None:
                raise source.refuse((*key, index), problem)
        return tuple(whole)
    if name in registry.SUMS:
        return tuple(_sum(source, (*key, index), name, level) for index, level in enumerate(levels))
    if name in (*FACTORS, *OPTIONAL):
        known = presets.names() if name == "preset" else registry.names(name)
        for index, level in enumerate(levels):
            if name == "layout" and _CHUNK.fullmatch(str(level)):
                continue
            if name == "preset" and str(level).endswith(".yaml"):
                continue  # a file of the user's, read with the study's changes
            if level not in known:
                raise source.unknown((*key, index), f"the {name}", level, known)
        return tuple(str(level) for level in levels)
    section, _, field = name.partition(".")
    if section == "measure":
        return _options_levels(source, key, name, levels)
    if section == "settings":
        return _settings_levels(source, key, field, levels)
    if section not in SECTIONS or not field:
        raise source.unknown(
            key,
            "the factor",
            name,
            (*FACTORS, *OPTIONAL, "or a path such as train.updates or measure.rollout.target"),
        )
    if field not in SECTIONS[section].model_fields:
        raise source.unknown(
            key, "the factor", name, [f"{section}.{f}" for f in SECTIONS[section].model_fields]
        )
    if field in (source.tree.get(section) or {}):
        raise source.refuse(
            (section, field),
            f"'{name}' is a factor; its levels stand under 'factors', so remove it here.",
        )
    beside = _shape(source.tree).get(section)
    return _valid_levels(source, key, SECTIONS[section], field, levels, beside)


def code_files(source: Source) -> tuple[Path, ...]:
    """The study's own Python files, which lie beside it: of `code:`, a name or a list of names.

    Raises UserError for what names no such file.
    """
    named = source.tree.get("code")
    if named is None:
        return ()
    paths = []
    for name in named if isinstance(named, list) else [named]:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+\.py", name):
            raise source.refuse(
                ("code",),
                f"code: found {quoted(named)}; allowed: the name of a Python file beside this one, or a list of such.",
            )
        path = Path(source.file).parent / name
        if not path.is_file():
            raise source.refuse(("code",), f"code: there is no file {path}.")
        paths.append(path)
    return tuple(paths)


def _shape(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The file with the largest budget that it varies as its budget, which its checkpoints lie within."""
    factors, train = tree.get("factors"), tree.get("train")
    levels = factors.get("train.updates") if isinstance(factors, Mapping) else None
    counts = [n for n in levels if type(n) is int and n > 0] if isinstance(levels, list) else []
    if not counts or not isinstance(train, Mapping):
        return dict(tree)
    return {**tree, "train": {"updates": max(counts), **train}}


def _valid_levels(
    source: Source,
    key: Key,
    section: type[BaseModel],
    field: str,
    levels: Sequence[Level],
    beside: Mapping[str, Any] | None = None,
) -> tuple[Level, ...]:
    """Levels of one setting, each checked by the section that it belongs to, with what stands `beside` it."""
    values = []
    for index, level in enumerate(levels):
        try:
            values.append(getattr(section.model_validate({**(beside or {}), field: level}), field))
        except ValidationError as error:
            raise source.refuse(
                (*key, index), f"{key[-1]}: {quoted(level)}: {said(error.errors()[0])}."
            ) from None
    return tuple(values)


def _sum(source: Source, key: Key, factor: str, level: Level) -> str:
    """The canonical spelling of a sum of parts."""
    return registry.canonical(factor, str(level), f"{source.place(key)}: the {factor}")


def _options_levels(
    source: Source, key: Key, name: str, levels: Sequence[Level]
) -> tuple[Level, ...]:
    """Levels of an option of a measurement, `measure.plan.beam`."""
    measurement, _, option = name.removeprefix("measure.").partition(".")
    known = registry.names("measurement")
    if measurement not in known:
        raise source.unknown(key, "the measurement", measurement, known)
    options: type[Section] = registry.get("measurement", measurement).Options
    if option not in options.model_fields:
        raise source.unknown(
            key, "the factor", name, [f"measure.{measurement}.{f}" for f in options.model_fields]
        )
    if option in ((source.tree.get("measure") or {}).get(measurement) or {}):
        raise source.refuse(
            ("measure", measurement, option),
            f"'{name}' is a factor; its levels stand under 'factors', so remove it here.",
        )
    return _valid_levels(source, key, options, option, levels)


def _settings_levels(
    source: Source, key: Key, field: str, levels: Sequence[Level]
) -> tuple[Level, ...]:
    """Levels of an algorithm's own hyper-parameter, `settings.discount`: of any algorithm that has it."""
    for name in registry.names("algorithm"):
        settings = registry.get("algorithm", name).Settings
        if field in settings.model_fields:
            return _valid_levels(source, key, settings, field, levels)
    known = {
        f"settings.{each}"
        for name in registry.names("algorithm")
        for each in registry.get("algorithm", name).Settings.model_fields
    }
    raise source.unknown(key, "the factor", f"settings.{field}", sorted(known))


def _design(
    source: Source,
    name: str,
    raw: dict[str, Any],
    factors: dict[str, tuple[Level, ...]],
    data: list[str],
    designs: list[str],
) -> Design:
    """A design with every level looked up."""
    key: Key = ("designs", name)
    if "data" not in raw:
        others = ", ".join(d for d in designs if d != name)
        raise source.refuse(
            key, f"design '{name}' names no data; list its data sets (other designs: {others})."
        )
    levels: dict[str, tuple[Level, ...]] = {}
    for part, value in raw.items():
        if part == "why":
            if not isinstance(value, str):
                raise source.refuse((*key, part), f"design '{name}': 'why' is a sentence.")
        elif part == "data":
            levels[part] = _chosen(source, (*key, part), part, value, tuple(data))
        elif part in factors:
            levels[part] = _chosen(source, (*key, part), part, value, factors[part])
        else:
            raise source.unknown(
                (*key, part), f"design '{name}': the factor", part, ("why", "data", *factors)
            )
    sets = tuple(str(d) for d in levels.pop("data"))
    return Design(data=sets, levels=levels, why=" ".join(str(raw.get("why", "")).split()))


def _chosen(
    source: Source, key: Key, factor: str, value: object, declared: tuple[Level, ...]
) -> tuple[Level, ...]:
    """Levels of a factor that a design takes: `all`, one level or a list of them."""
    if value == "all":
        return declared
    wanted = value if isinstance(value, list) else [value]
    if not wanted:
        raise source.refuse(key, f"no level of {factor} is listed.")
    no_repeats(source, key, f"level of {factor}", wanted)
    found = []
    for index, item in enumerate(wanted):
        level = find_level(item, declared)
        if level is None:
            raise source.unknown((*key, index), f"the {factor}", item, (*declared, "or all"))
        found.append(level)
    return tuple(found)


def _refusal(source: Source, error: ValidationError) -> UserError:
    """The first problem pydantic found, in one line; a name that isn't known explains one that is missing."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key: Key = tuple(p for p in problem["loc"] if (p != "[key]"))
    if (
        key and key[-1] in LEVELS and problem["type"] in LEVELS[key[-1]]
    ):  # the name of a union's member
        problem = {**problem, "msg": _no_level(problem["input"])}
        key = key[:-1]
    where = ".".join(str(p) for p in key)
    if problem["type"] == "extra_forbidden":
        allowed = _fields(key[:-1])
        if not key[:-1]:
            allowed = [*allowed, "profiles"]
        return source.unknown(
            key,
            f"the part '{'.'.join(map(str, key[:-1]))}' has no such entry"
            if key[:-1]
            else "a study has no such part",
            key[-1],
            allowed,
        )
    if problem["type"] == "missing":
        return source.refuse(key[:-1], f"'{where}' is missing.")
    return source.refuse(key, f"{where}: {found_in(problem)}{said(problem)}.")


# The members of `Level` in the place of a problem, and what pydantic calls it.
LEVELS: dict[Any, tuple[str, ...]] = {
    name: (f"{word}_type", f"{word}_parsing", "finite_number", "value_error")
    for name, word in (("str", "string"), ("bool", "bool"), ("int", "int"), ("float", "float"))
}


def _no_level(found: object) -> str:
    """Why a value is no level."""
    if found is None:
        return "expected a level; the level that is called none is written none"
    return "expected a level: a text, a number, true or false"


def _fields(key: Key) -> list[str]:
    model: type[BaseModel] = File
    if key and key[0] in SECTIONS:
        model = SECTIONS[str(key[0])]
    elif key and key[0] == "hypotheses":
        model = Hypothesis
    elif key and key[0] == "sequential":
        model = SequentialSection
    return list(model.model_fields)


def found_in(problem: Any) -> str:
    """What pydantic found, where it is one value."""
    value = problem.get("input")
    if value is None:
        return "found null; "
    return f"found {quoted(value)}; " if isinstance(value, str | int | float) else ""


def said(problem: Any) -> str:
    """pydantic's message as the second half of a sentence."""
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text[0].lower() + text[1:].rstrip(".")
