"""Every distinct model of a study is audited once before any of its fits trains; records are kept in audit.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ablate.audit.audit import Audit, audit_config
from ablate.config import OPTIONAL, settled, timesteps
from ablate.registry import get
from ablate.study import identity
from ablate.study.expand import Cohort
from ablate.track import kept, seal
from ablate.track.files import write_atomic
from ablate.track.folder import StudyFolder

# What an audit and a measured speed have been known by since before there was more of it.
FIRST_MODEL = ("parameters", "tolerance", "layers", "dropout")


def audit_models(
    cohorts: Sequence[Cohort], folder: StudyFolder, say: Callable[[str], None]
) -> dict[str, str]:
    """Audit every distinct model of the cohorts once; refusals by model key.

    Records are kept in audit.json, by model and code version, so that a later run need not repeat them.
    """
    records = {one["key"]: one for one in kept.audits(folder)}
    for config in (one.config for cohort in cohorts for one in cohort.trials):
        key = model_key(config)
        if key in records:
            continue
        say(f"audit {model_label(config)}")
        made = {"key": key, **audit_model(config).record()}
        if options := audit_options(config):
            made["options"] = options
        # An older version of the same model is no longer what would be trained.
        records = {k: one for k, one in records.items() if _audit_rank(one) != _audit_rank(made)}
        records[key] = made
    if cohorts:
        ranked = sorted(records.values(), key=_audit_rank)
        content = [seal.sign(one) for one in ranked]
        write_atomic(folder.audit, json.dumps(content, indent=None, separators=(",", ":")) + "\n")
    return {
        key: f"audit: {'; '.join(one['findings'])}"
        for key, one in records.items()
        if not one["passed"]
    }


def audit_model(config: Mapping[str, Any]) -> Audit:
    """The audit of a configuration's model: the system's own where it has one."""
    system = get("system", get("algorithm", config["algorithm"]).system)
    if hasattr(system, "audit"):
        own: Audit = system.audit(config)
        return own
    return audit_config(
        config["mixer"],
        timesteps(config),
        config["history"],
        config["condition"],
        config["head"],
        **audit_options(config),
    )


def model_key(config: Mapping[str, Any]) -> str:
    """What an audit depends on."""
    named = {**config, "context": timesteps(config)}
    parts = [named[name] for name in ("mixer", "context", "history", "condition", "head")]
    shape = audit_options(config)
    parts += [shape] if shape else []
    return identity.digest([identity.FIT_VERSION, parts, identity.part_versions(config)])


def audit_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the model isn't at its default, but its size: fields of `ModelSpec`."""
    shape = config_shape(config)
    found: dict[str, Any] = {n: shape[n] for n in ("layout", "input") if n in shape}
    size = ("width", "embedding_dropout")
    found |= {k: v for k, v in shape.get("model", {}).items() if k not in size}
    if get("algorithm", config["algorithm"]).system == "joint":
        found |= {"predicts": "all", "value_mask": config["settings"].get("value_mask", True)}
    state = config.get("measure", {}).get("rollout", {}).get("state", "re-encoded")
    return found if state == "re-encoded" else found | {"state": state}


def model_label(config: Mapping[str, Any]) -> str:
    """A configuration in a few words."""
    return (
        f"{config['mixer']} K={config['context']} {config['condition']} "
        f"{config['history']} {config['head']}"
    )


def config_shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's and a training's making isn't at its default: algorithm, layout, width, ..."""
    made = settled({**config, "train": {}})
    model = {k: v for k, v in made["model"].items() if k not in FIRST_MODEL}
    parts = {k: made[k] for k in (*OPTIONAL, "settings") if k in made}
    return {**parts, **({"model": model} if model else {})}


def _audit_rank(one: Mapping[str, Any]) -> tuple[Any, ...]:
    named = tuple(one[name] for name in ("mixer", "context", "history", "condition", "head"))
    return (*named, identity.canonical(one.get("options", {})))
