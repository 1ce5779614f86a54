"""Identity: what can change a result is hashed; where, by how many workers and on which device it
ran is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablate import registry
from ablate.config import SECTIONS, settled, settled_section

if TYPE_CHECKING:
    from ablate.study.hypotheses import Claiming
    from ablate.study.schema import Study

FIT_VERSION = 2
"""Raise this by one in any commit after which the same configuration may train another model: initialisation,
batch order, an update. Every fit is then trained again. Leave it for changes of speed, messages, reports or
analysis. Generators of data carry a version of their own, in the data's content hash; so does each measurement
(`registry.register`'s `version`), whose change measures its own rows again and trains nothing."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces. Raises ValueError for NaN and infinity, TypeError for
    what JSON can't hold."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


# Which registered parts a configuration names, by the key that names them.
NAMED = ("algorithm", "mixer", "head", "layout", "condition", "history")


def part_versions(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions of all registered parts that a fit uses, where a part has one (see `registry.Part`)."""
    used = [("data", str(config["data"]).split("/")[0])]
    for kind in NAMED:
        level = str(config.get(kind, ""))
        if kind in registry.SUMS and level:
            used += [(kind, each.name) for each in registry.terms(kind, level)]
        elif registry.known(kind, level):  # a layout such as `chunk-4` is none
            used.append((kind, level))
    found = {f"{kind} {name}": registry.part(kind, name).version for kind, name in used}
    return {name: version for name, version in found.items() if version}


def fit_id(streams: str, seed: int, config: Mapping[str, Any], data_hash: str) -> str:
    """Id of one fit: all that can change the trained model."""
    return digest({**_fit(streams, config, data_hash), "seed": seed})


def cohort_id(streams: str, config: Mapping[str, Any], data_hash: str) -> str:
    """Id of the fits that share everything but the seed."""
    return digest(_fit(streams, config, data_hash))


def row_id(fit: str, budget: int, measurement: str, options: Mapping[str, Any]) -> str:
    """Id of what a measurement gives for one fit after `budget` updates under these options."""
    return digest(
        {
            "budget": budget,
            "fit": fit,
            "measurement": measurement,
            "options": _asked(measurement, options),
            "version": registry.part("measurement", measurement).version,
        }
    )


def trial_id(fit: str, budget: int, rows: Mapping[str, str]) -> str:
    """Id of one fit at one budget under one setting of its measurements (name -> row id)."""
    return digest({"budget": budget, "fit": fit, "rows": dict(rows)})


def _asked(measurement: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a measurement as they are hashed."""
    return settled_section(registry.get("measurement", measurement).Options, options)


def _fit(streams: str, config: Mapping[str, Any], data_hash: str) -> dict[str, Any]:
    return {
        "code": FIT_VERSION,
        "config": settled(config),
        "data_hash": data_hash,
        "parts": part_versions(config),
        "streams": streams,
    }


def study_hash(study: Study) -> str:
    """Hash of what the study runs: its designs, settings and seeds at this profile; no explanatory
    text, no claims."""
    content = study.model_dump(
        mode="json",
        exclude={
            *("question", "hypotheses", "sequential", "profile", "profiles"),
            *("margin", "alpha", "notes", "exploratory", "figures", "file", "code", "tuned"),
        },
    )
    for design in content["designs"].values():
        del design["why"]
    for name, section in SECTIONS.items():
        content[name] = settled_section(section, content[name])
    content["measure"] = {name: _asked(name, said) for name, said in content["measure"].items()}
    for reading in content["readings"].values():
        reading.pop("folder", None)  # where a file lies changes nothing
    content["readings"] = {name: said for name, said in content["readings"].items() if said}
    for name in ("settings", "presets", "readings"):
        if not content[name]:
            del content[name]
    return digest(content)


def hypotheses_hash(study: Claiming) -> str:
    """Hash of what the study claims: every hypothesis but its wording, the error rate they share,
    and the looks before all seeds are there, where it declares any."""
    claims = [h.model_dump(mode="json", exclude={"says"}) for h in study.hypotheses]
    content = {"alpha": study.alpha, "hypotheses": sorted(claims, key=lambda c: c["id"])}
    looks = getattr(study, "sequential", None)
    if looks is not None:
        content["sequential"] = looks.model_dump(mode="json")
    return digest(content)
