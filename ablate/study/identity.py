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

CODE_VERSION = 1
"""Raise this by one in any commit after which the same configuration may give other numbers:
training, model initialisation, batch order, evaluation or a metric. Every finished trial is then
run again. Leave it for changes of speed, messages, reports or analysis. Generators of data carry a
version of their own, in the data's content hash."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces. Raises ValueError for NaN and infinity, TypeError for
    what JSON can't hold."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def plugin_versions(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions of the parts a configuration uses, where a part has one (see `registry.Part`)."""
    used = {"mixer": config["mixer"], "head": config["head"], "data": config["data"].split("/")[0]}
    if config.get("algorithm", "bc") != "bc":
        used["algorithm"] = config["algorithm"]
    versions = {kind: registry.part(kind, name).version for kind, name in used.items()}
    return {kind: version for kind, version in versions.items() if version}


def cohort_id(study: str, config: Mapping[str, Any], data_hash: str) -> str:
    """Id of the trials that share everything but the seed."""
    return digest(_identity(study, config, data_hash))


def trial_id(study: str, seed: int, config: Mapping[str, Any], data_hash: str) -> str:
    """Id of one trial."""
    return digest({**_identity(study, config, data_hash), "seed": seed})


def _identity(study: str, config: Mapping[str, Any], data_hash: str) -> dict[str, Any]:
    return {
        "code": CODE_VERSION,
        "config": settled(config),
        "data_hash": data_hash,
        "plugins": plugin_versions(config),
        "study": study,
    }


def study_hash(study: Study) -> str:
    """Hash of what the study runs: its designs, settings and seeds at this profile; no explanatory
    text, no claims."""
    content = study.model_dump(
        mode="json",
        exclude={
            *("question", "hypotheses", "sequential", "profile", "profiles"),
            *("margin", "alpha", "notes"),
        },
    )
    for design in content["designs"].values():
        del design["why"]
    for name, section in SECTIONS.items():
        content[name] = settled_section(section, content[name])
    for name in ("settings", "presets"):
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
