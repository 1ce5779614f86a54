"""Parts are found by name, wherever they come from."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate import registry
from ablate.errors import UserError
from ablate.registry import get, load_plugin, names, part, register

PLUGIN = """
from ablate.registry import register

@register("mixer", "{name}")
class Mine:
    pass
"""


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    with registry.scope():
        yield


def test_ours_and_the_comparators_are_known() -> None:
    assert {"attention", "bag", "conv", "gru", "lstm", "mlp"} <= set(names("mixer"))
    assert {"categorical", "mixture", "mse"} <= set(names("head"))
    assert {"lq-mix", "pointmaze", "tmaze"} <= set(names("data"))
    assert names("mixer") == sorted(names("mixer"))
    assert part("mixer", "gru").module == "baselines.gru"
    assert part("mixer", "gru").version == ""  # the code version covers what is ours


def test_a_registered_part_is_found() -> None:
    @register("flavour", "sweet")
    class Sweet:
        pass

    assert get("flavour", "sweet") is Sweet
    assert names("flavour") == ["sweet"]


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"^mixer: 'atention' is not known; .* 'attention'\?$"):
        get("mixer", "atention")
    with pytest.raises(UserError, match=r"^study\.yaml:3: 'x'"):
        get("mixer", "x", "study.yaml:3")


def test_a_name_is_given_once() -> None:
    class Other:
        pass

    Other.__module__ = "somewhere.else"
    with pytest.raises(UserError, match=r"^somewhere\.else: .*'gru'.* by baselines\.gru"):
        register("mixer", "gru")(Other)
    again = get("mixer", "gru")
    assert register("mixer", "gru")(again) is again  # a module may be imported twice


def test_a_plugin_is_a_file_and_its_content_is_its_version(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(name="mine"))
    load_plugin(str(path))
    load_plugin(str(path))
    version = part("mixer", "mine").version
    assert len(version) == 12
    path.write_text(PLUGIN.format(name="mine-too"))
    load_plugin(str(path))
    assert part("mixer", "mine-too").version != version


def test_a_plugin_that_is_not_there_or_does_not_import_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.py: there is no such file"):
        load_plugin(str(tmp_path / "none.py"))
    with pytest.raises(UserError, match=r"it does not import .ModuleNotFoundError: "):
        load_plugin("there.is.no.such.module")
    path = tmp_path / "broken.py"
    for text in ("import nothing_of_this_name", "1 / 0", "def ("):
        path.write_text(text)
        for _ in range(2):  # also the second time
            with pytest.raises(UserError, match="it does not import") as caught:
                load_plugin(str(path))
            assert "\n" not in str(caught.value)


def test_a_plugin_may_not_take_a_name(tmp_path: Path) -> None:
    path = tmp_path / "taken.py"
    path.write_text(PLUGIN.format(name="gru"))
    with pytest.raises(UserError, match="already registered by baselines"):
        load_plugin(str(path))


def test_a_module_that_is_not_ours_has_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_mixer.py").write_text(PLUGIN.format(name="installed"))
    monkeypatch.syspath_prepend(tmp_path)
    load_plugin("installed_mixer")
    assert len(part("mixer", "installed").version) == 12


def test_a_part_has_a_label_and_a_place() -> None:
    register("flavour", "sour", label="rather sour", order=2)(object)
    register("flavour", "plain")(object)
    register("flavour", "salty", order=1)(object)
    assert [each.name for each in registry.parts("flavour")] == ["salty", "sour", "plain"]
    assert part("flavour", "sour").label == "rather sour"


@pytest.mark.parametrize(
    ("kind", "said", "spelt"),
    [
        ("condition", "time + return-to-go", "return-to-go+time"),
        ("condition", "time+policy-id+goal", "goal+policy-id+time"),
        ("condition", "none", "none"),
        ("history", "returns+actions+states", "states+actions+returns"),
        ("input", "discretised", "discretised"),
    ],
)
def test_a_sum_of_parts_has_one_spelling(kind: str, said: str, spelt: str) -> None:
    assert registry.canonical(kind, said) == spelt


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("time+gaol", r"^here: 'gaol' is not known; .* 'goal'\?$"),
        ("time+time", r"^here: 'time\+time' holds 'time' twice\.$"),
        ("none+time", r"^here: found 'none\+time'; 'none' stands alone\.$"),
        ("", r"^here: '' is not known"),
    ],
)
def test_a_sum_that_is_none_is_refused(said: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        registry.canonical("condition", said, "here")


def test_a_name_in_a_sum_holds_no_plus() -> None:
    with pytest.raises(UserError, match=r"the condition 'a\+b': a '\+' joins several"):
        register("condition", "a+b")(object)


def test_what_is_registered_in_a_scope_is_forgotten_and_can_be_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name="mine"))
    before = names("mixer")
    for _ in range(2):
        with registry.scope():
            load_plugin(str(file))
            register("mixer", "another")(object)
            assert names("mixer") == sorted([*before, "another", "mine"])
        assert names("mixer") == before


def test_a_scope_may_know_some_parts_only() -> None:
    with registry.scope(only=[part("mixer", "gru")]):
        assert names("mixer") == ["gru"]
        assert names("head") == []
    assert "mse" in names("head")


def test_our_own_modules_stay_registered_when_first_imported_in_a_scope(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "late.py").write_text(PLUGIN.format(name="late"))
    monkeypatch.setattr("baselines.__path__", [str(tmp_path)])
    with registry.scope():
        importlib.import_module("baselines.late")
    assert get("mixer", "late").__module__ == "baselines.late"
    monkeypatch.delitem(sys.modules, "baselines.late")


def test_what_lies_beside_a_study_neither_shadows_nor_runs(tmp_path: Path) -> None:
    for name in (
        "baselines.py",
        "baselines/__init__.py",
        "yaml.py",
        "ablate/cli.py",
        "scipy/__init__.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("open('ran', 'w')")
    root = str(Path(registry.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "ablate", "audit", "gru", "--context", "2", "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"gru"' in done.stdout
    assert not (tmp_path / "ran").exists()


def test_another_module_of_the_comparators_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = types.ModuleType("baselines")
    other.__file__ = str(tmp_path / "baselines.py")
    monkeypatch.setitem(sys.modules, "baselines", other)
    monkeypatch.setattr(registry, "_loaded", False)
    with pytest.raises(UserError, match=r"baselines\.py: was imported as 'baselines'"):
        names("mixer")
    monkeypatch.delitem(sys.modules, "baselines")
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "__init__.py").write_text("")
    monkeypatch.setattr(registry, "COMPARATORS", tmp_path / "baselines")
    with pytest.raises(UserError, match="not ablate's"):
        names("mixer")


def test_our_processes_find_the_same_modules_but_not_the_current_folders_first(
    tmp_path: Path,
) -> None:
    (tmp_path / "ablate").mkdir()
    (tmp_path / "ablate" / "__init__.py").write_text("open('ran', 'w')")
    command, environment = registry.process("ablate.errors")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "ran").exists()
