"""What all tests share: how they are dealt out to processes, and fixtures of those that run whole studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import Tiny, inline

from ablate import registry

# The files that take longest, which go first: one that began last would keep the other processes waiting.
LONGEST = (
    "launch/test_survival.py",
    "data/test_dose.py",
    "data/families/test_mazes.py",
    "data/families/test_mujoco_sets.py",
    "report/test_report_commands.py",
    "examples/test_examples.py",
    "launch/test_plugin.py",
    "baselines/test_value_algorithms.py",
    "launch/test_random_kills.py",
    "bench/test_inference.py",
    "report/test_page_in_browser.py",
    "test_single.py",
    "test_tutorial.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others in their order."""
    first = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files (`-n 2`): what the tests of a file share is then made once, not by every process."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = (
        False  # by number of tests, which says little of how long they take
    )
    return LoadFileScheduling(config, log)


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
