"""The one place where a user's features are checked before anything is shared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from siguard.errors import InputError
from siguard.nn.model import Defender, FloatArray, Model


def check_features(features: npt.ArrayLike, model: Model, defender: Defender) -> FloatArray:
    """Features (batch, in) as float64; raises `InputError` naming the field and the cure."""
    if not isinstance(model, Model):
        raise InputError(f"model: found {type(model).__name__}; expected a siguard.Model")
    if not isinstance(defender, Defender):
        raise InputError(f"defender: found {type(defender).__name__}; expected a siguard.Defender")
    if defender.classes != model.classes:
        raise InputError(
            f"defender: it takes {defender.classes} confidences but the model gives {model.classes}; "
            "pass the classifier trained for this model"
        )
    return check_feature_array(features, model.shape[0])


def check_feature_array(features: npt.ArrayLike, width: int) -> FloatArray:
    """Features (batch, width) as float64; raises `InputError` naming what is wrong and where."""
    try:
        array = np.asarray(features)
    except ValueError as error:
        raise InputError(f"features: not a rectangular array of numbers ({error})") from None
    if array.dtype.kind not in "iufb":
        raise InputError(f"features: found values of type {array.dtype}; expected real numbers")
    if array.ndim != 2 or array.shape[0] == 0:
        raise InputError(f"features: found shape {array.shape}; expected (batch, {width}), batch >= 1")
    if array.shape[1] != width:
        raise InputError(f"features: found {array.shape[1]} columns; the model takes {width}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise InputError(f"features: NaN or infinite value at row {row}, column {column}")
    return array
