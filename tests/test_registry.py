"""Parts are found by name, wherever they come from."""

from __future__ import annotations

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
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    names("mixer")
    monkeypatch.setattr(registry, "_parts", dict(registry._parts))


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
