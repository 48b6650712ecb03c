"""`Secret`: values that local code must not look at."""

from __future__ import annotations

from typing import Any, NoReturn

from siguard.errors import SecretError

_CURES = {
    "branch on": "use siguard.mpc.conversion.select(party, bit, x, y)",
    "compare": "use siguard.mpc.thresholds.at_least, whose result is shared",
    "index with": "use siguard.mpc.curves.at_places",
    "convert": "a secret leaves the servers only through siguard.mpc.reveal",
    "take the length of": "shapes are public: use .shape",
    "iterate over": "shapes are public: index with x[i] for i in range(x.shape[0])",
    "format": "log or print repr(x), which shows shape and ring only",
    "hash": "a secret cannot be a key; key by a step name instead",
    "pickle": "shares never leave their party",
}


class Secret:
    """Base of all shares: any local use that would depend on the value raises `SecretError` with the cure."""

    __slots__ = ()
    #: numpy must not take a share apart in ``array + share``.
    __array_ufunc__ = None

    def _refuse(self, action: str) -> NoReturn:
        raise SecretError(f"cannot {action} a secret {type(self).__name__}: {_CURES[action]}")

    def __bool__(self) -> NoReturn:
        self._refuse("branch on")

    def __eq__(self, other: object) -> NoReturn:
        self._refuse("compare")

    def __ne__(self, other: object) -> NoReturn:
        self._refuse("compare")

    def __lt__(self, other: object) -> NoReturn:
        self._refuse("compare")

    def __le__(self, other: object) -> NoReturn:
        self._refuse("compare")

    def __gt__(self, other: object) -> NoReturn:
        self._refuse("compare")

    def __ge__(self, other: object) -> NoReturn:
        self._refuse("compare")

    def __index__(self) -> NoReturn:
        self._refuse("index with")

    def __int__(self) -> NoReturn:
        self._refuse("convert")

    def __float__(self) -> NoReturn:
        self._refuse("convert")

    def __complex__(self) -> NoReturn:
        self._refuse("convert")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        self._refuse("convert")

    def __bytes__(self) -> NoReturn:
        self._refuse("convert")

    def __len__(self) -> NoReturn:
        self._refuse("take the length of")

    def __iter__(self) -> NoReturn:
        self._refuse("iterate over")

    def __contains__(self, item: object) -> NoReturn:
        self._refuse("compare")

    def __str__(self) -> NoReturn:
        self._refuse("format")

    def __format__(self, spec: str) -> NoReturn:
        self._refuse("format")

    def __hash__(self) -> NoReturn:
        self._refuse("hash")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self._refuse("pickle")
