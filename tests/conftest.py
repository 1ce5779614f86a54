"""Fixtures of the tests that run whole studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_study import Tiny, inline

from ablate import registry


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data sets, made once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def module_scope() -> Iterator[None]:
    """What a file of tests registers, as the code of a study that its fixtures load, is forgotten after it."""
    with registry.scope():
        yield


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    with registry.scope():
        yield


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """What a test draws without a generator is the same whichever tests ran before."""
    torch.default_generator.manual_seed(0)


@pytest.fixture
def tiny(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Tiny]:
    """A tiny study, nothing of it run yet; what a test registers is forgotten after it."""
    monkeypatch.setenv("ABLATE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    made = Tiny(tmp_path, capsys)
    made.write()
    with registry.scope():
        registry.register("launcher", "inline")(inline)
        yield made
