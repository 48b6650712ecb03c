"""Replace shipped code at run time, and put it back: for negative controls and for hybrid models."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from siguard.proofsim.walk import gates_of_the_package


@contextmanager
def replaced(original: Any, replacement: Any) -> Iterator[None]:
    """While open, every name in the package that stands for ``original`` stands for ``replacement``.

    original: a function or class of the package; modules import names from each other, so all are replaced.
    Raises ValueError when there is none: a patch that patches nothing would prove nothing.
    """
    with replaced_all({original: replacement}):
        yield


@contextmanager
def replaced_all(replacements: Mapping[Any, Any]) -> Iterator[None]:
    """`replaced` of several functions at once.

    A module that is first imported inside takes the replacement from the others, and is put right with them.
    """
    # A walk under a patch would take replacements for gates, and keep them.
    gates_of_the_package()
    by_identity = {id(original): replacement for original, replacement in replacements.items()}
    originals = {id(replacement): original for original, replacement in replacements.items()}
    # One look at all names for both: it is a good part of what a small enumeration takes.
    names = _names_of({**originals, **by_identity})
    bound = [one for one in names if id(one[2]) in by_identity]
    missing = [one for one in replacements if not any(one is value for _, _, value in bound)]
    if missing:
        raise ValueError(f"nothing in the package is bound to {missing[0]!r}")
    # A replacement may have a name of its own in the package, which stays.
    own = {(module.__name__, name) for module, name, value in names if id(value) in originals}
    for module, name, value in bound:
        setattr(module, name, by_identity[id(value)])
    try:
        yield
    finally:
        for module, name, value in bound:
            setattr(module, name, value)
        for module, name, value in _names_of(originals):
            if (module.__name__, name) not in own:
                setattr(module, name, originals[id(value)])


def _names_of(wanted: Mapping[int, Any]) -> list[tuple[ModuleType, str, Any]]:
    """Where the package's modules name an object of one of these ids: (module, name, object)."""
    return [
        (module, name, value)
        for key, module in list(sys.modules.items())
        if key.partition(".")[0] == "siguard"
        for name, value in list(vars(module).items())
        if id(value) in wanted
    ]


@contextmanager
def replaced_method(owner: type, name: str, replacement: Any) -> Iterator[None]:
    """While open, method ``name`` of a class of the package is ``replacement``.

    Raises ValueError when the class itself defines no such method.
    """
    if name not in vars(owner):
        raise ValueError(f"{owner.__name__} itself has no {name!r}; patch the class that defines it")
    original = vars(owner)[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)
