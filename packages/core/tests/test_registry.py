"""Names that are looked up when they are asked for: registries and the public names of packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import weft.core
import weft.core.few_shot
from weft.core import registry
from weft.core.backbone.family import families
from weft.core.few_shot import heads
from weft.core.registry import Registry
from weft.core.unit import units


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two modules that each hold a THING."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name in ("second", "first"):
        (folder / f"{name}.py").write_text(f"class {name.title()}: ...\nTHING = {name.title()}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "shelf"
    for name in [name for name in sys.modules if name.partition(".")[0] == "shelf"]:
        del sys.modules[name]


def test_things_of_modules_are_listed_before_they_are_loaded(package: str) -> None:
    things: Registry[type] = Registry("`thing`", ValueError, package, attribute="THING")
    assert list(things) == ["first", "second"]
    assert "shelf.first" not in sys.modules
    assert things["first"].__name__ == "First"
    assert "shelf.second" not in sys.modules


def test_a_name_belongs_to_one_thing_until_it_is_replaced_or_forgotten(package: str) -> None:
    things: Registry[type] = Registry("`thing`", ValueError, package, attribute="THING")
    things.register("mine", int)
    things.register("mine", int)
    with pytest.raises(
        ValueError, match=r"`thing` must be new, but 'mine' is taken by builtins\.int\. Choose another"
    ):
        things.register("mine", str)
    with pytest.raises(ValueError, match=r"'first' is taken by shelf\.first\.First"):
        things.register("first", str)
    things.register("mine", str, replace=True)
    assert things["mine"] is str
    things.forget("mine")
    assert "mine" not in things
    assert len(things) == 2


def test_an_entry_point_gives_a_thing_of_another_distribution(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = importlib.metadata.EntryPoint("third", "builtins:float", "weft.things")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == "weft.things" else [])
    things: Registry[type] = Registry("`thing`", ValueError, package, attribute="THING", group="weft.things")
    assert list(things) == ["first", "second", "third"]
    assert things["third"] is float
    taken = importlib.metadata.EntryPoint("first", "builtins:float", "weft.things")
    monkeypatch.setattr(registry, "entry_points", lambda group: [taken])
    assert things["first"].__name__ == "First"


def test_what_was_registered_is_found_without_looking_through_distributions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    things: Registry[type] = Registry("`thing`", ValueError, group="weft.things")
    things.register("mine", int)
    looks: list[str] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: looks.append(group) or [])
    assert things["mine"] is int
    assert "mine" in things
    assert not looks
    assert "yours" not in things
    assert looks == ["weft.things"]


@pytest.mark.parametrize("known", [units(), families(), heads()], ids=["units", "families", "heads"])
def test_a_registry_is_alphabetical_and_read_only(known: Registry[object]) -> None:
    assert list(known) == sorted(known)
    assert len(known) > 10
    with pytest.raises(TypeError, match="does not support item assignment"):
        known["x"] = 1  # type: ignore[index]
    with pytest.raises(KeyError, match="nowhere"):
        known["nowhere"]


@pytest.mark.parametrize("module", [weft.core, weft.core.few_shot], ids=lambda module: module.__name__)
def test_every_public_name_is_found_and_none_is_a_module(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert set(names) <= set(dir(module))
    assert [name for name in names if isinstance(getattr(module, name), type(sys))] == []
    with pytest.raises(AttributeError, match="has no attribute 'nowhere'"):
        _ = module.nowhere  # type: ignore[attr-defined]


def test_configurations_are_described_without_torch() -> None:
    script = (
        "import sys, weft.core.unit.method, weft.core.few_shot.head_config; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("known", "group"), [(units(), "weft.units"), (families(), "weft.families"), (heads(), "weft.heads")]
)
def test_units_families_and_heads_of_other_distributions_are_found(
    known: Registry[object], group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = importlib.metadata.EntryPoint("of_others", "builtins:float", group)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert known["of_others"] is float
    assert "of_others" in known
