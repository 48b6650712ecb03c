"""Patches reach every name of the package, and leave none behind."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from siguard.mpc.arithmetic import deal, multiply, remask, view
from siguard.proofsim.patching import replaced, replaced_all, replaced_method
from siguard.ring import Ring

#: Whatever their names stand for at the moment.
arithmetic: Any = importlib.import_module("siguard.mpc.arithmetic")
conversion: Any = importlib.import_module("siguard.mpc.conversion")


def bindings() -> dict[tuple[str, str], int]:
    """Every name in every module of the package, and what it stands for."""
    return {
        (key, name): id(value)
        for key, module in sys.modules.items()
        if key.partition(".")[0] == "siguard"
        for name, value in vars(module).items()
    }


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = bindings()
    yield
    after = bindings()
    assert {key: after.get(key) for key in before} == before


async def other(*arguments: Any, **options: Any) -> None:
    """In place of a gate."""


async def another(*arguments: Any, **options: Any) -> None:
    """In place of another gate."""


def holders(original: object) -> list[tuple[ModuleType, str]]:
    return [(sys.modules[key], name) for (key, name), identity in bindings().items() if identity == id(original)]


def test_every_name_of_the_package_is_replaced_and_no_other() -> None:
    places = holders(remask)
    assert len(places) >= 4
    before = bindings()
    with replaced(remask, other):
        assert all(vars(module)[name] is other for module, name in places)
        changed = {key for key, identity in bindings().items() if before.get(key) != identity}
        assert changed == {(module.__name__, name) for module, name in places}
        assert holders(remask) == []
    assert holders(remask) == places


@pytest.mark.parametrize("error", [ValueError("inside"), KeyboardInterrupt()])
def test_names_are_restored_after_exceptions(error: BaseException) -> None:
    places = holders(remask)
    with pytest.raises(type(error)), replaced(remask, other):
        raise error
    assert holders(remask) == places


def test_several_are_replaced_at_once() -> None:
    with replaced_all({remask: other, deal: another}):
        assert (arithmetic.remask, arithmetic.deal) == (other, another)
        assert (conversion.remask, conversion.deal) == (other, another)
    assert (arithmetic.remask, arithmetic.deal) == (remask, deal)


def test_two_functions_may_change_places() -> None:
    with replaced_all({remask: deal, deal: remask}):
        assert (arithmetic.remask, arithmetic.deal) == (deal, remask)
    assert (arithmetic.remask, arithmetic.deal) == (remask, deal)


def test_a_replacement_that_has_a_name_of_its_own_keeps_it() -> None:
    with replaced(multiply, arithmetic.dot):
        assert arithmetic.multiply is arithmetic.dot
    assert arithmetic.dot is not multiply


def test_patches_nest() -> None:
    with replaced(remask, other):
        with replaced(other, another):
            assert standing() is another
        assert standing() is other
    assert standing() is remask


def standing() -> Any:
    return arithmetic.remask


@pytest.mark.parametrize("originals", [[other], [remask, other]])
def test_a_patch_that_patches_nothing_is_refused_and_changes_nothing(originals: list[Callable[..., Any]]) -> None:
    places = holders(remask)
    with (
        pytest.raises(ValueError, match="nothing in the package is bound to <function other"),
        replaced_all(dict.fromkeys(originals, another)),
    ):
        pytest.fail("the block ran")
    assert holders(remask) == places


def test_no_replacements_are_no_error() -> None:
    before = bindings()
    with replaced_all({}):
        assert bindings() == before


@pytest.fixture
def late_module(tmp_path: Path) -> Iterator[Callable[[], ModuleType]]:
    """Imports a module of the package that was not there before and takes gates from where they are defined."""
    name = "siguard.mpc.late_for_the_patch"
    text = "from siguard.mpc.arithmetic import dot as own_dot\nfrom siguard.mpc.arithmetic import deal, remask\n"
    (tmp_path / "late_for_the_patch.py").write_text(text)
    package = sys.modules["siguard.mpc"]
    package.__path__.append(str(tmp_path))
    try:
        yield lambda: importlib.import_module(name)
    finally:
        package.__path__.remove(str(tmp_path))
        sys.modules.pop(name, None)
        with suppress(AttributeError):
            del package.late_for_the_patch


def test_a_module_first_imported_inside_a_patch_keeps_nothing(late_module: Callable[[], Any]) -> None:
    with replaced_all({remask: other, deal: another}):
        late = late_module()
        assert (late.remask, late.deal) == (other, another)
    assert (late.remask, late.deal) == (remask, deal)


def test_a_module_first_imported_inside_nested_patches_keeps_nothing(late_module: Callable[[], Any]) -> None:
    with replaced(remask, other), replaced(other, another), replaced(deal, arithmetic.dot):
        late = late_module()
        assert (late.remask, late.deal, late.own_dot) == (another, arithmetic.dot, arithmetic.dot)
    assert (late.remask, late.deal) == (remask, deal)


def test_a_walk_under_a_patch_finds_the_shipped_gates() -> None:
    """In a process of its own: a walk is remembered."""
    program = """
import functools
from siguard.mpc.arithmetic import multiply
from siguard.proofsim.patching import replaced
@functools.wraps(multiply)
async def wrapped(*arguments, **options): ...
with replaced(multiply, wrapped):
    from siguard.proofsim.walk import gates_of_the_package
    (gate,) = [gate for gate in gates_of_the_package() if gate.name == "arithmetic.multiply"]
    assert gate.coroutine is multiply, "the walk took the replacement for the gate"
    assert gate.current is wrapped
assert gate.current is multiply
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_method_is_replaced_and_restored() -> None:
    shipped = vars(Ring)["add"]
    with replaced_method(Ring, "add", Ring.sub):
        assert Ring(8).add(Ring(8).constant([5]), Ring(8).constant([3])) == 2
    assert vars(Ring)["add"] is shipped
    with pytest.raises(RuntimeError), replaced_method(Ring, "add", Ring.sub):
        raise RuntimeError
    assert vars(Ring)["add"] is shipped


def test_class_and_static_methods_stay_what_they_are() -> None:
    class Kind:
        @classmethod
        def named(cls) -> str:
            return cls.__name__

        @staticmethod
        def two() -> int:
            return 2

    with replaced_method(Kind, "named", classmethod(lambda cls: "x")), replaced_method(Kind, "two", lambda: 3):
        assert (Kind.named(), Kind.two()) == ("x", 3)
    assert (Kind.named(), Kind.two(), Kind().two()) == ("Kind", 2, 2)


@pytest.mark.parametrize("name", ["no_such_method", "__ror__"])
def test_a_method_that_the_class_does_not_define_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name), replaced_method(Ring, name, None):
        pytest.fail("the block ran")
    assert name not in vars(Ring)


def test_the_gates_used_here_are_the_shipped_ones() -> None:
    assert (arithmetic.multiply, arithmetic.view) == (multiply, view)
