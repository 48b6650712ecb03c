"""Plaintext containers for dense ReLU networks: the target `Model` and the membership classifier `Defender`.

Both belong to the model owner.  Servers only ever hold shares of them (`siguard.nn.shared`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from siguard.errors import InputError

FloatArray = npt.NDArray[np.float64]


#: All pairs of classes are compared, and tables of sums grow with their number.
MAX_CLASSES = 512


class DenseNetwork:
    """A dense network ``x @ W + b`` with ReLU between the layers and none after the last.

    layers: ``[(W, b), ...]`` with W of shape (in, out) and b of shape (out,), finite numbers.
    Raises `InputError` naming the layer and the field.
    """

    _what: ClassVar[str] = "network"

    def __init__(self, layers: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> None:
        checked: list[tuple[FloatArray, FloatArray]] = []
        if not isinstance(layers, Iterable):
            raise InputError(f"{self._what}: found {type(layers).__name__}; expected [(W, b), ...]")
        given: Iterable[Any] = layers
        for index, layer in enumerate(given):
            if not isinstance(layer, (tuple, list)) or len(layer) != 2:
                raise InputError(f"{self._what} layer {index}: expected a pair (W, b)")
            W = self._number_array(layer[0], f"{self._what} layer {index}: W")
            b = self._number_array(layer[1], f"{self._what} layer {index}: b")
            if W.ndim != 2 or 0 in W.shape:
                raise InputError(f"{self._what} layer {index}: W has shape {W.shape}; expected (in, out)")
            if b.shape != (W.shape[1],):
                raise InputError(f"{self._what} layer {index}: b has shape {b.shape}; expected ({W.shape[1]},)")
            if checked and checked[-1][0].shape[1] != W.shape[0]:
                raise InputError(
                    f"{self._what} layer {index}: W takes {W.shape[0]} inputs but layer {index - 1} "
                    f"gives {checked[-1][0].shape[1]}"
                )
            checked.append((W, b))
        if not checked:
            raise InputError(f"{self._what}: no layers; expected [(W, b), ...]")
        self.layers: tuple[tuple[FloatArray, FloatArray], ...] = tuple(checked)

    @staticmethod
    def _number_array(value: npt.ArrayLike, field: str) -> FloatArray:
        try:
            given = np.asarray(value)
        except ValueError as error:  # a ragged nested list
            raise InputError(f"{field}: not an array of numbers ({error})") from None
        if given.dtype.kind not in "iuf":
            raise InputError(f"{field}: found values of type {given.dtype}; expected real numbers")
        array = given.astype(np.float64)
        if not np.isfinite(array).all():
            raise InputError(f"{field}: holds NaN or infinite values; all weights must be finite")
        array.setflags(write=False)
        return array

    @property
    def shape(self) -> tuple[int, ...]:
        """Widths from input to output, for example (10, 128, 64, 1)."""
        return (self.layers[0][0].shape[0], *(W.shape[1] for W, _ in self.layers))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'-'.join(map(str, self.shape))})"

    def __call__(self, inputs: npt.ArrayLike) -> FloatArray:
        """Float64 forward pass: inputs (batch, in) to (batch, out), no final activation."""
        activation = np.asarray(inputs, dtype=np.float64)
        for index, (W, b) in enumerate(self.layers):
            if index:
                activation = np.maximum(activation, 0.0)
            activation = activation @ W + b
        return activation

    @classmethod
    def from_sklearn(cls, mlp: Any) -> Self:
        """Take the weights of a fitted scikit-learn MLPClassifier or MLPRegressor with ReLU activation."""
        coefficients: Sequence[Any] | None = getattr(mlp, "coefs_", None)
        if coefficients is None:
            raise InputError(f"{cls._what}: not a fitted scikit-learn MLP (it has no coefs_); call fit first")
        if getattr(mlp, "activation", "relu") != "relu":
            raise InputError(f"{cls._what}: activation is {mlp.activation!r}; only 'relu' can be shared")
        return cls(list(zip(coefficients, mlp.intercepts_, strict=True)))

    def save(self, path: str | Path) -> None:
        """Write the weights to an ``.npz`` file: arrays W0, b0, W1, ..., nothing that can run code."""
        arrays: dict[str, FloatArray] = {}
        for index, (W, b) in enumerate(self.layers):
            arrays[f"W{index}"], arrays[f"b{index}"] = W, b
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read weights written by `save`.  Raises `InputError` naming the file and what is missing."""
        try:
            # Opened here, so that a broken archive leaves no open file behind.
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            raise InputError(f"{cls._what} file {path}: no such file") from None
        except (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile) as error:
            raise InputError(f"{cls._what} file {path}: not an .npz of plain arrays ({error})") from None
        layers: list[tuple[FloatArray, FloatArray]] = []
        while f"W{len(layers)}" in arrays:
            index = len(layers)
            if f"b{index}" not in arrays:
                raise InputError(f"{cls._what} file {path}: W{index} is there but b{index} is missing")
            layers.append((arrays[f"W{index}"], arrays[f"b{index}"]))
        if not layers:
            raise InputError(f"{cls._what} file {path}: no arrays W0, b0, ...; was it written by save()?")
        return cls(layers)


class Model(DenseNetwork):
    """The target model: features of shape (batch, in) to logits of shape (batch, classes)."""

    _what = "model"

    def __init__(self, layers: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> None:
        super().__init__(layers)
        if not 2 <= self.classes <= MAX_CLASSES:
            raise InputError(f"model: it has {self.classes} outputs; a guard takes 2 to {MAX_CLASSES} classes")

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.shape[-1]


class Defender(DenseNetwork):
    """The membership classifier h: unsorted confidences of C classes to one logit, above 0 for "member".

    SIGuard and MemGuard use two hidden layers, shape (C, 128, 64, 1); any number from one up is accepted.
    """

    _what = "defender"

    def __init__(self, layers: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> None:
        super().__init__(layers)
        if len(self.shape) < 3 or self.shape[-1] != 1:
            raise InputError(
                f"defender: shape {'-'.join(map(str, self.shape))}; expected C-...-1: "
                "at least one hidden layer, and one output logit"
            )
        if not 2 <= self.classes <= MAX_CLASSES:
            raise InputError(
                f"defender: it takes {self.classes} confidences; a guard takes 2 to {MAX_CLASSES} classes"
            )

    @property
    def classes(self) -> int:
        """Number of confidences that h takes."""
        return self.shape[0]
