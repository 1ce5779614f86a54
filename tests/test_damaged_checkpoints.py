"""Damaged checkpoints: none is evaluated, none takes long or much memory, each ends in one line.

A file may be damaged by accident; or made to look whole, with the hash of what it holds. Of the latter kind only what
says nothing wrong of itself may be taken for a model.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from ablate.errors import UserError
from ablate.launch import single
from ablate.learn import checkpoint
from ablate.learn.checkpoint import save_policy
from ablate.study import presets

SMALL = (
    "model.width=16", "model.layers=1", "train.updates=4", "train.warmup=1", "context=2", "train.points=1",
    "train.targets_per_update=16", "measure.rollout.episodes=1", "measure.rollout.target=p90",
)  # fmt: skip
SECONDS, MEGABYTES = 5.0, 500.0
Tensors = dict[str, torch.Tensor]
About = dict[str, Any]


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small policy."""
    config = presets.configuration("dt", "tmaze/passive-3", SMALL)
    return single.train(config, 0, tmp_path_factory.mktemp("trained"), cache).checkpoint


def content(path: Path) -> tuple[Tensors, About]:
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["about"])


def some(tensors: Tensors, rng: random.Random) -> str:
    return rng.choice(sorted(name for name in tensors if tensors[name].ndim))


def dropped(tensors: Tensors, rng: random.Random) -> None:
    del tensors[some(tensors, rng)]


def added(tensors: Tensors, rng: random.Random) -> None:
    tensors[f"extra.{rng.random()}"] = torch.zeros(3)


def misshapen(tensors: Tensors, rng: random.Random) -> None:
    name = some(tensors, rng)
    value = tensors[name]
    shapes = [value.reshape(-1, 1, 1), value[:0], value[:1, None], torch.cat([value, value])]
    tensors[name] = rng.choice(shapes).contiguous()


def retyped(tensors: Tensors, rng: random.Random) -> None:
    kinds = [torch.int8, torch.float16, torch.float64, torch.bfloat16, torch.complex64, torch.uint8]
    for name in [some(tensors, rng)] if rng.random() < 0.5 else list(tensors):
        tensors[name] = tensors[name].to(rng.choice(kinds))


def not_a_number(tensors: Tensors, rng: random.Random) -> None:
    floats = [name for name in tensors if tensors[name].is_floating_point()]
    for name in [rng.choice(floats)] if rng.random() < 0.5 else floats:
        tensors[name].view(-1)[rng.randrange(tensors[name].numel())] = rng.choice(
            [float("nan"), float("inf")]
        )


TENSORS = (dropped, added, misshapen, retyped, not_a_number)
VALUES = (
    None, [], {}, "", "x", "a\nb", "12", -1, 0, 1.5, -1e308, float("nan"), float("inf"), 10**6, 10**9, 10**12,
    10**30, 10**400, True, [[]], {"a": {}}, "x" * 10_000, ["x"] * 1000, {"width": 10**9},
)  # fmt: skip


def places(about: Any, found: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into the description."""
    if found:
        yield found
    if isinstance(about, dict | list):
        for key in about if isinstance(about, dict) else range(len(about)):
            yield from places(about[key], (*found, key))


def altered(about: About, rng: random.Random) -> None:
    """A field taken away, or of another kind or size."""
    *into, last = rng.choice(list(places(about)))
    holder: Any = about
    for key in into:
        holder = holder[key]
    if rng.random() < 0.3:
        del holder[last]
    else:
        holder[last] = copy.deepcopy(rng.choice(VALUES))


def hurt(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, doubled or put in."""
    at = rng.randrange(len(data))
    header = 8 + struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.4:
        at = rng.randrange(header)
    made = [
        data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
        data[:at],
        data[:at] + rng.randbytes(rng.randrange(1, 100)) + data[at:],
        data + data,
        struct.pack("<Q", rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, 10**8])) + data[8:],
        data[:at] + b"[" * 50_000 + data[at:],
    ]
    return rng.choice(made)


def refused(path: Path, cache: Path) -> bool:
    """Whether a file is refused in one line, soon and with little memory; a trace fails the test."""
    before, began = peak(), time.perf_counter()
    text = ""
    try:
        single.evaluate(path, cache, [], 1, [])
    except UserError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 2000
    assert time.perf_counter() - began < SECONDS, text
    assert peak() - before < MEGABYTES, text
    return bool(text)


def peak() -> float:
    """Largest memory of this process so far, in megabytes."""
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6


def by_accident(path: Path, whole: Path, rng: random.Random) -> None:
    """Write a damaged copy, with the hash of what was there before."""
    if rng.random() < 0.4:
        path.write_bytes(hurt(whole.read_bytes(), rng))
        return
    tensors, about = content(whole)
    before = json.dumps(about, sort_keys=True)
    digest = checkpoint._hash(before, tensors)
    if rng.random() < 0.5:
        rng.choice(TENSORS)(tensors, rng)
    else:
        while json.dumps(about, sort_keys=True) == before:
            altered(about, rng)
    metadata = {"about": json.dumps(about, sort_keys=True), "sha256": digest}
    path.write_bytes(save(tensors, metadata))


def on_purpose(path: Path, whole: Path, rng: random.Random) -> None:
    """Write a copy that says something else, with the hash of that."""
    tensors, about = content(whole)
    altered(about, rng)
    save_policy(path, tensors, about)


def check(number: int, seed: int, whole: Path, cache: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path = tmp_path / "damaged.safetensors"
    for _ in range(number):
        by_accident(path, whole, rng)
        assert refused(path, cache)
        on_purpose(path, whole, rng)
        refused(path, cache)


def test_damaged_checkpoints_are_refused(whole: Path, cache: Path, tmp_path: Path) -> None:
    assert not refused(whole, cache)
    check(25, 0, whole, cache, tmp_path)


@pytest.mark.slow
def test_many_damaged_checkpoints_are_refused(whole: Path, cache: Path, tmp_path: Path) -> None:
    check(400, 1, whole, cache, tmp_path)


@pytest.mark.parametrize("harm", TENSORS)
def test_tensors_that_are_not_the_models_are_refused(
    harm: Callable[[Tensors, random.Random], None], whole: Path, cache: Path, tmp_path: Path
) -> None:
    tensors, about = content(whole)
    harm(tensors, random.Random(0))
    save_policy(tmp_path / "x", tensors, about)
    assert refused(tmp_path / "x", cache)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("study",), None, "study: found nothing; allowed: a text"),
        (("seed",), "0", "seed: found '0'; allowed: a whole number"),
        (("seed",), True, "seed: found 'True'"),
        (("budget",), 0, "budget: found '0'"),
        (("data",), None, "data: found nothing; allowed: a text"),
        (("measure",), [], r"measure: found '\[\]'; allowed: a mapping"),
        (("context",), 10**9, "context: found '1000000000'"),
        (("model", "width"), 10**6, r"model\.width: found '1000000'; allowed: at most"),
        (("model", "layers"), 10**9, r"model\.layers: found '1000000000'"),
        (("model", "timesteps"), 10**9, r"model\.timesteps: found"),
        (("head",), "categorical", "so it is of another model|doesn't describe"),
    ],
)
def test_fields_are_checked_before_a_model_is_made(
    place: tuple[str, ...], value: Any, message: str, whole: Path, cache: Path, tmp_path: Path
) -> None:
    tensors, about = content(whole)
    holder = about
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    save_policy(tmp_path / "x", tensors, about)
    with pytest.raises(UserError, match=message):
        single.evaluate(tmp_path / "x", cache, [], 1, [])


@pytest.mark.parametrize(
    ("targets", "overrides", "message"),
    [
        (["nan"], [], "--target nan: allowed: a finite number"),
        (["1e999"], [], "--target 1e999: allowed: a finite number"),
        (["best"], [], "'best' is not known"),
        ([], ["points=[["], r"--set points=\[\[: '\[\[' is not a YAML value"),
        ([], ["target=.nan"], "allowed: numbers"),
        ([], ["target=2001-99-99"], "or a number"),
        ([], ["context=[1, 2]"], "context"),
        ([], ["context=512 tokens"], "context"),
        ([], ["evaluate.target=1"], "'evaluate' is not known"),
    ],
)
def test_wrong_requests_are_one_line(
    targets: list[str], overrides: list[str], message: str, whole: Path, cache: Path
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        single.evaluate(whole, cache, targets, 1, overrides)
    assert "\n" not in str(refusal.value)


def test_a_checkpoint_may_not_say_what_is_imported(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no file may say what is imported; --plugin this\.module does"
    ):
        single._refuse_import(tmp_path, {"environment": "this.module:Own-v0"})
    for named in ("Hopper-v4", "gymnasium:Hopper-v4", None):
        single._refuse_import(tmp_path, {"environment": named})
