"""Fixtures of the tests that run whole studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_study import Tiny, inline

from ablate import registry
from ablate.measure import heldout, rollout


@pytest.fixture(scope="session", autouse=True)
def measurements() -> None:
    """The responses of measurements that nobody has registered yet."""
    for name, module in (("rollout", rollout), ("held-out", heldout)):
        if name not in registry.names("measurement"):
            stand_in = SimpleNamespace(responses=module.RESPONSES)
            registry.register("measurement", name, version="0")(stand_in)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data sets, made once for all tests."""
    return tmp_path_factory.mktemp("cache")


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
