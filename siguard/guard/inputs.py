"""The one place where logits are checked before a guard runs, in plaintext or under MPC."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from siguard.errors import InputError
from siguard.nn.model import Defender, FloatArray

#: Logits saturate this far below the largest of their row; e^-1000 is already 0 in float64.
LOGIT_LIMIT = 2.0**20


def relative_to_largest(logits: FloatArray) -> FloatArray:
    """Logits minus the largest of their row, at least -`LOGIT_LIMIT`: the same softmax and label, never a wrap."""
    with np.errstate(over="ignore"):  # a difference beyond float64 saturates too
        relative: FloatArray = np.maximum(logits - logits.max(axis=1, keepdims=True), -LOGIT_LIMIT)
    return relative


def check_logits(logits: npt.ArrayLike, defender: Defender) -> FloatArray:
    """Check a batch of logits against the membership classifier that will guard it.

    logits: shape (batch, classes), at least one row and two classes, finite numbers, however large (under MPC they
    saturate relative to each row's largest); integers are taken as numbers, booleans and strings are not.
    defender: a `Defender` that takes exactly ``classes`` confidences.
    Returns a new float64 array of shape (batch, classes), which the caller may keep.
    Raises `InputError` whose message begins with ``logits`` or ``defender``.
    """
    if not isinstance(defender, Defender):
        raise InputError(
            f"defender: found {type(defender).__name__}; expected a siguard.Defender "
            "(Defender([(W, b), ...]), Defender.load(path) or Defender.from_sklearn(mlp))"
        )
    array = _numbers(logits)
    if array.ndim != 2:
        hint = "; for one query pass logits[None, :]" if array.ndim == 1 else ""
        raise InputError(f"logits: found shape {array.shape}; expected two axes (batch, classes){hint}")
    batch, classes = array.shape
    if batch == 0:
        raise InputError(f"logits: found an empty batch, shape {array.shape}; expected at least one row")
    if classes < 2:
        raise InputError(
            f"logits: found {classes} class(es), shape {array.shape}; a guard needs at least 2 "
            "(for a binary model with one logit z pass the two columns 0 and z)"
        )
    for what, bad in (("NaN", np.isnan(array)), ("infinite values", np.isinf(array))):
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"logits: found {what}, first at row {row}, class {column}; all logits must be finite numbers"
            )
    if classes != defender.classes:
        raise InputError(
            f"defender: it takes {defender.classes} confidences but the logits have {classes} classes; "
            "pass the membership classifier trained for this model"
        )
    return array


def _numbers(logits: npt.ArrayLike) -> FloatArray:
    """A float64 copy of ``logits``, or `InputError` if they are not numbers."""
    try:
        array = np.asarray(logits)
    except ValueError as error:  # a ragged nested list
        raise InputError(f"logits: not a rectangular array of numbers ({error})") from None
    if array.dtype.kind not in "iuf":  # booleans, complex numbers, text and objects would convert silently
        raise InputError(
            f"logits: found values of type {array.dtype}; expected real numbers (float or integer), "
            "shape (batch, classes)"
        )
    return array.astype(np.float64)
