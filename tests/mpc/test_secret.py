"""A secret cannot be looked at by accident, and its linear operations are those of the ring."""

from __future__ import annotations

import copy
import json
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from mpc_helpers import share, share_opened, share_terms, signed_of, terms_of, value_of

from siguard.errors import SecretError
from siguard.mpc.secret import Secret
from siguard.mpc.share import Additive, Share, as_additive, as_opened
from siguard.ring import PACKED, Ring, ring

FEW = settings(deadline=None, max_examples=25, derandomize=True)

#: Values whose digits would be seen anywhere.
VALUES = [[987654321012345678, -987654321012345678, 424242424242424242]]
SECRETS: dict[str, Secret] = {
    "Share": share(VALUES)[0],
    "Additive": share_terms(VALUES)[1],
    "Opened": share_opened(VALUES)[2],
}
every_secret = pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)


def branch(x: Any) -> None:
    if x:
        raise AssertionError


LOOKS: dict[str, Callable[[Any], object]] = {
    "if": branch,
    "bool": bool,
    "not": operator.not_,
    "and": lambda x: x and 1,
    "==": lambda x: x == 0,
    "== itself": lambda x: x == x,
    "!=": lambda x: x != 0,
    "<": lambda x: x < 0,
    "<=": lambda x: x <= 0,
    ">": lambda x: x > 0,
    ">=": lambda x: x >= 0,
    "reflected ==": lambda x: 0 == x,  # noqa: SIM300 - the point
    "reflected <": lambda x: 0 < x,  # noqa: SIM300 - the point
    "array == x": lambda x: np.zeros(3) == x,
    "array < x": lambda x: np.zeros(3) < x,
    "x in list": lambda x: x in [1, 2],
    "1 in x": lambda x: 1 in x,
    "max": lambda x: max(x, copy_of(x)),
    "sorted": lambda x: sorted([x, copy_of(x)]),
    "index": operator.index,
    "list[x]": lambda x: [1, 2][x],
    "array[x]": lambda x: np.zeros(3)[x],
    "slice": lambda x: [1, 2][x:],
    "range": range,
    "int": int,
    "float": float,
    "complex": complex,
    "bytes": bytes,
    "hex": hex,
    "len": len,
    "iter": iter,
    "list": list,
    "unpack": lambda x: print(*x),  # noqa: T201
    "tuple assignment": lambda x: [a for a, *_ in [x]],
    "str": str,
    "format": format,
    "format with a spec": lambda x: format(x, ".3f"),
    "f-string": lambda x: f"{x}",
    "f-string with !s": lambda x: f"{x!s}",
    "str.format": "{}".format,
    "print": print,
    "%s": lambda x: "%s" % x,  # noqa: UP031
    "hash": hash,
    "dict key": lambda x: {x: 1},
    "dict lookup": lambda x: {}.get(x),
    "set": lambda x: {x},
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "np.asarray": np.asarray,
    "np.array of several": lambda x: np.array([x, x]),
    "np.array of objects": lambda x: np.array(x, dtype=object),
    "np.concatenate": lambda x: np.concatenate([x, x]),
    "np.where": lambda x: np.where(x, 1, 0),
    "array assignment": lambda x: np.zeros((1, 3)).__setitem__(0, x),
}
#: Refused by numpy, json or the interpreter before a secret is asked: a TypeError without a cure of ours.
REFUSED_ELSEWHERE: dict[str, Callable[[Any], object]] = {
    "np.add(array, x)": lambda x: np.add(np.zeros(3, np.uint64), x),
    "np.add(x, x)": lambda x: np.add(x, x),
    "np.multiply.reduce": np.multiply.reduce,
    "np.isnan": np.isnan,
    "json": json.dumps,
    "%d": lambda x: "%d" % x,  # noqa: UP031
    "abs": abs,
    "round": round,
    "invert": operator.invert,
    "x ** 2": lambda x: x**2,
    "x / 2": lambda x: x / 2,
    "x // 2": lambda x: x // 2,
    "x % 2": lambda x: x % 2,
    "x & 1": lambda x: x & 1,
    "x >> 1": lambda x: x >> 1,
    "x @ x": lambda x: x @ x,
    "vars": vars,
    "memoryview": memoryview,
}


def copy_of(x: Any) -> Any:
    return x.reshape(3)


@every_secret
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_looking_at_a_secret_raises_with_the_cure(secret: Secret, look: Callable[[Any], object]) -> None:
    with pytest.raises(SecretError, match=r"^cannot [a-z ]+ a secret [A-Z][a-z]+: \w+") as caught:
        look(secret)
    assert isinstance(caught.value, TypeError)
    assert type(secret).__name__ in str(caught.value)


@every_secret
@pytest.mark.parametrize("look", REFUSED_ELSEWHERE.values(), ids=REFUSED_ELSEWHERE)
def test_other_looks_raise_a_type_error(secret: Secret, look: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        look(secret)


@every_secret
def test_repr_shows_shape_and_ring_only(secret: Secret) -> None:
    expected = f"{type(secret).__name__}(shape=(1, 3), ring=Z_2^64)"
    assert repr(secret) == expected
    assert f"{secret!r}" == expected
    assert repr([secret]) == f"[{expected}]"


@every_secret
def test_log_events_with_a_secret_show_its_repr(secret: Secret, capsys: pytest.CaptureFixture[str]) -> None:
    for renderer in (
        structlog.dev.ConsoleRenderer(colors=False),
        structlog.processors.KeyValueRenderer(),
        structlog.processors.JSONRenderer(),
    ):
        structlog.wrap_logger(structlog.PrintLogger(), processors=[renderer]).info("event", value=secret)
    shown = capsys.readouterr().out
    assert shown.count(repr(secret)) == 3
    holders = [getattr(secret, name) for name in ("first", "second", "value") if hasattr(secret, name)]
    for number in np.concatenate([np.ravel(holder) for holder in holders]):
        assert str(number) not in shown
        assert str(number.view(np.int64)) not in shown


def test_an_object_cannot_hold_attributes_beside_its_slots() -> None:
    for secret in SECRETS.values():
        with pytest.raises(AttributeError):
            secret.label = 1  # type: ignore[attr-defined]


# --- linear operations ------------------------------------------------------------------------------------

RINGS = [pytest.param(ring(bits), id=f"k={bits}") for bits in (1, 2, 3, 8, 16, 31, 32, 64)]


def integers(data: st.DataObject, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    seed = data.draw(st.integers(0, 2**32), label="seed")
    low = data.draw(st.sampled_from([-(2**63), -3]), label="low")
    return np.random.default_rng(seed).integers(low, -low - 1, shape)


def wrapped(values: Any, R: Ring) -> Any:
    """Exact integers modulo 2^k, read signed."""
    half = 1 << (R.bits - 1)
    return (values.astype(object) + half) % (1 << R.bits) - half


@pytest.mark.parametrize("R", RINGS)
@FEW
@given(data=st.data())
def test_linear_operations_match_exact_integers(R: Ring, data: st.DataObject) -> None:
    x, y, c = (integers(data, (3, 4)) for _ in range(3))
    X, Y = share(x, R, seed=1), share(y, R, seed=2)
    x, y, c = x.astype(object), y.astype(object), c.astype(object)
    public = R.constant(c.astype(np.int64))
    wanted: list[tuple[Callable[[Any, Any], Any], Any]] = [
        (lambda a, b: a + b, x + y),
        (lambda a, b: a - b, x - y),
        (lambda a, b: -a, -x),
        (lambda a, b: a + public, x + c),
        (lambda a, b: public + a, x + c),
        (lambda a, b: a - public, x - c),
        (lambda a, b: public - a, c - x),
        (lambda a, b: a * public, x * c),
        (lambda a, b: public * a, x * c),
        (lambda a, b: a + 5, x + 5),
        (lambda a, b: 5 - a, 5 - x),
        (lambda a, b: -7 * a, -7 * x),
        (lambda a, b: np.int64(3) * a + np.int64(-2), 3 * x - 2),
        (lambda a, b: sum([a, b]), x + y),
        (lambda a, b: a.sum(0), x.sum(0)),
        (lambda a, b: a.sum(-1), x.sum(-1)),
        (lambda a, b: a[1:, ::2], x[1:, ::2]),
        (lambda a, b: a[:, [2, 0, 2]], x[:, [2, 0, 2]]),
        (lambda a, b: a.reshape(2, 6), x.reshape(2, 6)),
        (lambda a, b: a.map(np.transpose), x.T),
        (lambda a, b: a.reshape(3, 1, 4).broadcast(3, 2, 4), np.broadcast_to(x[:, None], (3, 2, 4))),
        (lambda a, b: Share.concatenate([a, b], axis=1), np.concatenate([x, y], axis=1)),
        (lambda a, b: Share.concatenate([a, b, a]), np.concatenate([x, y, x])),
    ]
    for number, (operation, exact) in enumerate(wanted):
        results = [operation(a, b) for a, b in zip(X, Y, strict=True)]
        assert signed_of(results).tolist() == wrapped(exact, R).tolist(), f"operation {number} in {R}"


@pytest.mark.parametrize("R", RINGS[2::5])
@pytest.mark.parametrize(
    ("left", "right"), [((3, 1), (1, 4)), ((4,), (3, 4)), ((3, 4), (4,)), ((1,), (2, 3)), ((2, 1, 4), (3, 1))]
)
def test_shapes_broadcast(R: Ring, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(-9, 9, left), rng.integers(-9, 9, right)
    pairs: list[tuple[Any, Any]] = list(zip(share(x, R, seed=1), share(y, R, seed=2), strict=True))
    assert signed_of([a + b for a, b in pairs]).tolist() == wrapped(x + y, R).tolist()
    assert signed_of([a - b for a, b in pairs]).tolist() == wrapped(x - y, R).tolist()
    assert signed_of([a * y for a, _ in pairs]).tolist() == wrapped(x * y, R).tolist()
    assert signed_of([a + y for a, _ in pairs]).tolist() == wrapped(x + y, R).tolist()
    assert signed_of([y - a for a, _ in pairs]).tolist() == wrapped(y - x, R).tolist()


def test_a_result_is_as_deep_as_its_deepest_part() -> None:
    x, y = share([1, 2], depth=3)[0], share([3, 4], depth=7)[0]
    a, b = as_additive(x), as_additive(y)
    for deep in (x + y, y - x, Share.concatenate([x, y]), a + y, b - x, Additive.concatenate([a, b])):
        assert deep.depth == 7
    for shallow in (-x, x + 1, x * 2, x[:1], x.sum(0), x.reshape(2, 1), as_opened(x), -a, a * 3):
        assert shallow.depth == 3


@pytest.mark.parametrize("dealer", [False, True])
@pytest.mark.parametrize("R", RINGS)
def test_additive_sharings_are_linear_too(R: Ring, dealer: bool) -> None:
    rng = np.random.default_rng(5)
    x, y, z = (rng.integers(-99, 99, (3, 4)) for _ in range(3))
    X, Y, Z = share_terms(x, R, seed=1, dealer=dealer), share_terms(y, R, seed=2), share(z, R, seed=3)
    rows = list(zip(X, Y, Z, strict=True))
    wanted = [
        ([a + b for a, b, _ in rows], x + y),
        ([a - b for a, b, _ in rows], x - y),
        ([a + c for a, _, c in rows], x + z),
        ([b - c for _, b, c in rows], y - z),
        ([-a for a, _, _ in rows], -x),
        ([3 * a for a, _, _ in rows], 3 * x),
        ([a.sum(1) for a, _, _ in rows], x.sum(1)),
        ([a[1:].reshape(8) for a, _, _ in rows], x[1:].reshape(8)),
        ([Additive.concatenate([b, a], 1) for a, b, _ in rows], np.concatenate([y, x], 1)),
    ]
    for number, (results, exact) in enumerate(wanted):
        assert R.signed(terms_of(results)).tolist() == wrapped(exact, R).tolist(), f"operation {number} in {R}"


def test_the_product_of_two_secrets_names_the_gate() -> None:
    x: Any = share([1])[0]
    with pytest.raises(TypeError, match="multiply"):
        x * x


def test_packed_bits_add_as_xor() -> None:
    x, y = (np.random.default_rng(seed).integers(0, 2**64, (2, 3), np.uint64) for seed in (1, 2))
    results = [a + b - a - a for a, b in zip(share(x, PACKED, seed=1), share(y, PACKED, seed=2), strict=True)]
    assert value_of(results).tolist() == (x ^ y).tolist()
