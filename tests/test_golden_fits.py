"""Training gives the bits that it gave when `golden_fits.json` was written."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from golden_fits import BASE, FITS, GOLDEN, PRESETS, machine, recorded, train

from ablate import registry
from ablate.study import presets

RECORD = json.loads(GOLDEN.read_text())
RTOL = {"float32": 1e-4, "bfloat16": 1e-2}  # of losses, where bits aren't comparable
REMEDY = "if it is meant to, write tests/golden_fits.json anew with `python -m tests.golden_fits`"


@pytest.fixture(scope="module")
def alike() -> bool:
    """Whether this machine's bits are those of the record; where they aren't, the summary says so."""
    here, there = machine(), RECORD["machine"]
    if here != there:
        warnings.warn(
            f"golden fits were recorded with {there}, this is {here}: their losses are compared to"
            f" relative tolerances of {RTOL}, their parameters not at all.",
            stacklevel=1,
        )
    return here == there


@pytest.mark.parametrize("name", FITS)
def test_a_fit_is_what_it_was(name: str, alike: bool, cache: Path) -> None:
    now, before = recorded(train(FITS[name], cache)), RECORD["fits"][name]
    if not alike:
        rtol = RTOL[FITS[name].config["train"]["precision"]]
        for one, other in zip(now["losses"], before["losses"], strict=True):
            np.testing.assert_allclose(_numbers(one), _numbers(other), rtol, atol=1e-6)
        return
    for seed, (one, other) in enumerate(zip(now["losses"], before["losses"], strict=True)):
        pairs = zip(one.split(), other.split(), strict=True)
        changed = [update for update, (a, b) in enumerate(pairs, 1) if a != b]
        assert not changed, (
            f"training changed; {REMEDY}. {name}, place {seed}: from update {changed[0]} on, losses are"
            f" {_numbers(one)}, were {_numbers(other)}."
        )
    # A tensor that no training touches may come in addition.
    for seed, (one, other) in enumerate(zip(now["tensors"], before["tensors"], strict=True)):
        lost = Counter(other.split()) - Counter(one.split())
        assert not lost, (
            f"training changed; {REMEDY}. {name}, place {seed}: tensors that are no longer there, as"
            f" entries:hash: {', '.join(sorted(lost))}."
        )


def test_the_record_holds_these_fits() -> None:
    assert RECORD["fits"].keys() == FITS.keys(), REMEDY


def test_every_part_of_ours_is_in_some_fit() -> None:
    def used(name: str) -> set[str]:
        return {fit.config[name] for fit in FITS.values()}

    for kind in ("mixer", "head", "algorithm", "layout"):
        ours = {
            name
            for name in registry.names(kind)
            if registry.part(kind, name).module.startswith(("ablate.", "baselines."))
        }
        assert ours <= used(kind), f"{kind}: add a golden fit"
    for kind in ("condition", "history"):
        told = {name for level in used(kind) for name in level.split("+")}
        assert set(registry.names(kind)) <= told, f"{kind}: add a golden fit"
    assert set(registry.names("input")) <= used("input")
    assert used("context") >= {1, 4, 20}
    assert set(PRESETS) == set(presets.names())
    assert all(set(fit.config) >= set(BASE) for fit in FITS.values())


def test_what_a_fit_is_there_for_has_an_effect() -> None:
    single = [fit["losses"][0] for name, fit in RECORD["fits"].items() if not FITS[name].stacked]
    assert len(set(single)) == len(single)


def _numbers(text: str) -> list[float]:
    return [float.fromhex(each) for each in text.split()]
