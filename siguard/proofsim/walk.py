"""Gates and policies are found by walking the package, so that a new one cannot be forgotten."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import siguard.guard
import siguard.guard.policies
import siguard.mpc
import siguard.nn
from siguard.mpc.gate import GateInfo, gate_info

#: Where protocol code lives.
PACKAGES = (siguard.mpc, siguard.guard, siguard.nn)


class Gate(NamedTuple):
    """A gate of the package: its name as module.name, its coroutine, its declaration."""

    name: str
    coroutine: Callable[..., Awaitable[Any]]
    info: GateInfo

    @property
    def current(self) -> Callable[..., Awaitable[Any]]:
        """What its name stands for now: the coroutine as shipped, or what a negative control put in its place."""
        found: Callable[..., Awaitable[Any]] = vars(sys.modules[self.coroutine.__module__])[self.info.name]
        return found


@cache
def gates_of_the_package() -> tuple[Gate, ...]:
    """All coroutines with a declaration in the packages of protocol code, each once.

    Raises TypeError for a gate that its module does not hold under its own name (a method, an inner function):
    nothing could be put in its place.
    """
    return tuple(dict.fromkeys(gate for package in PACKAGES for gate in gates_of(package)))


def gates_of(package: ModuleType) -> Iterator[Gate]:
    """The gates that the modules of a package define."""
    for module in _modules(package):
        classes = [member for member in vars(module).values() if inspect.isclass(member)]
        for holder in (module, *classes):
            for member in vars(holder).values():
                info = gate_info(member)
                if info is None or member.__module__ != module.__name__:
                    continue
                named: Any = vars(module).get(info.name)
                if named is not member:
                    raise TypeError(f"{module.__name__}: the gate {info.name} is no function of the module itself")
                yield Gate(f"{module.__name__.rsplit('.', 1)[-1]}.{info.name}", named, info)


def policy_modules() -> dict[str, ModuleType]:
    """The modules of `siguard.guard.policies` by the policy's name."""
    package = siguard.guard.policies
    return {name.rsplit(".", 1)[-1]: module for name, module in _named_modules(package) if module is not package}


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for _, module in _named_modules(package):
        yield module


def _named_modules(package: ModuleType) -> Iterator[tuple[str, ModuleType]]:
    """The package itself and every module in it."""
    yield package.__name__, package
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        yield found.name, importlib.import_module(found.name)
