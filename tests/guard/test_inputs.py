"""Logits are refused with a message that names the field and the cure, before any guard runs."""

from typing import Any

import numpy as np
import pytest

from siguard.errors import InputError
from siguard.guard.inputs import LOGIT_LIMIT, check_logits, relative_to_largest
from siguard.nn.model import Defender


@pytest.fixture
def defender() -> Defender:
    return Defender([(np.ones((3, 4)), np.zeros(4)), (np.ones((4, 1)), np.zeros(1))])


def test_accepts_numbers_and_returns_a_float64_copy(defender: Defender) -> None:
    logits = np.array([[1, 2, 3], [4, 5, 6]])
    checked = check_logits(logits, defender)
    assert checked.dtype == np.float64
    assert (checked == logits).all()
    same_type = logits.astype(np.float64)
    copy = check_logits(same_type, defender)
    copy[0, 0] = 99.0
    assert same_type[0, 0] == 1.0


def test_accepts_nested_lists_and_any_finite_magnitude(defender: Defender) -> None:
    assert check_logits([[0.0, -1.7e308, 1.7e308]], defender).shape == (1, 3)


def test_saturates_below_the_largest_of_a_row_and_keeps_order() -> None:
    rows = np.array([[1.0, 3.0, 2.5], [1.7e308, -1.7e308, 0.0], [1e9, 1e9 - 2.0**21, 1e9]])
    expected = [[-2.0, 0.0, -0.5], [0.0, -LOGIT_LIMIT, -LOGIT_LIMIT], [0.0, -LOGIT_LIMIT, 0.0]]
    assert relative_to_largest(rows).tolist() == expected


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([["a", "b", "c"]], r"^logits: found values of type <U1"),
        ([[True, False, True]], r"^logits: found values of type bool"),
        ([[1j, 0, 0]], r"^logits: found values of type complex128"),
        ([[None, 1.0, 2.0]], r"^logits: found values of type object"),
        ([[1.0, 2.0, 3.0], [1.0]], r"^logits: not a rectangular array"),
        ([1.0, 2.0, 3.0], r"^logits: found shape \(3,\).*pass logits\[None, :\]"),
        (np.zeros((1, 1, 3)), r"^logits: found shape \(1, 1, 3\)"),
        (1.5, r"^logits: found shape \(\)"),
        (np.zeros((0, 3)), r"^logits: found an empty batch"),
        (np.zeros((2, 1)), r"^logits: found 1 class.*two columns 0 and z"),
        (np.zeros((2, 0)), r"^logits: found 0 class"),
        ([[0.0, 1.0, 2.0], [0.0, np.nan, 2.0]], r"^logits: found NaN, first at row 1, class 1"),
        ([[0.0, 1.0, -np.inf]], r"^logits: found infinite values, first at row 0, class 2"),
        (np.zeros((2, 4)), r"^defender: it takes 3 confidences but the logits have 4 classes"),
    ],
)
def test_refuses(defender: Defender, logits: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_logits(logits, defender)


def test_refuses_what_is_not_a_defender() -> None:
    not_a_defender: Any = "h.npz"
    with pytest.raises(InputError, match=r"^defender: found str; expected a siguard.Defender"):
        check_logits([[0.0, 1.0]], not_a_defender)
