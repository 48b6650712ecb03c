"""Logits of a model one cannot retrain here, from an ``.npz`` file of plain arrays.

| array | shape | |
|---|---|---|
| ``logits`` | (n, classes) | required |
| ``member`` | (n,) of 0 and 1 | required for attacks |
| ``labels`` | (n,) true classes | optional; attacks that need the true label are left out without it |
| ``shadow_logits``, ``shadow_member`` | likewise | optional, together: answers of the attacker's own models |
| ``shadow_labels`` | | optional, with both of them |
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError  # only to name numpy's refusal; nothing is ever unpickled

import numpy as np
import numpy.typing as npt

from siguard.errors import InputError
from siguard.nn.model import FloatArray
from siguard.privacy.datasets import IndexArray
from siguard.privacy.metrics import check_member

_ARRAYS = ("logits", "member", "labels", "shadow_logits", "shadow_member", "shadow_labels")


@dataclass(frozen=True, eq=False)
class ShadowLogits:
    """Logits on rows whose membership the attacker knows: what attacks are trained on.

    logits: (n, classes) float64.  member: (n,) 1 where the row trained the model that answers, else 0.
    labels: (n,) true classes, or None.
    """

    logits: FloatArray
    member: IndexArray
    labels: IndexArray | None


@dataclass(frozen=True, eq=False)
class LogitsData:
    """The arrays of a logits file, checked; None for what the file does not have."""

    logits: FloatArray
    member: IndexArray | None
    labels: IndexArray | None
    shadow: ShadowLogits | None

    def with_attacker_rows(self, *, seed: int = 0) -> LogitsData:
        """This, with ``shadow`` filled: as it is if it is there, else a random half of the rows goes there.

        An attacker who knows the membership of half the rows of the target itself is stronger than one with
        shadow models, so the figures err on the side of the attack.  Members and non-members are halved
        separately; the other half is what remains for the evaluation.
        Raises `InputError` if there is no ``member``, or fewer than 2 members or 2 non-members.
        """
        if self.shadow is not None:
            return self
        if self.member is None:
            raise InputError("member: the logits file has no such array; attacks need it")
        generator = np.random.default_rng(seed)
        given = np.zeros(len(self.member), dtype=np.bool_)
        for kind in (0, 1):
            rows = generator.permutation(np.flatnonzero(self.member == kind))
            if len(rows) < 2:
                raise InputError(
                    f"member: found {len(rows)} row(s) of {kind}; without shadow_logits at least 2 are needed"
                )
            given[rows[: len(rows) // 2]] = True
        labels = self.labels
        shadow = ShadowLogits(self.logits[given], self.member[given], None if labels is None else labels[given])
        kept = ~given
        return replace(
            self,
            logits=self.logits[kept],
            member=self.member[kept],
            labels=None if labels is None else labels[kept],
            shadow=shadow,
        )


def load_logits(path: str | Path, *, attack: bool = True) -> LogitsData:
    """Read an ``.npz`` file of logits.

    attack: whether attacks will be run, which makes ``member`` a required array.
    Raises `InputError` naming the file and each array that is missing, unknown or malformed.
    """
    where = f"logits file {path}"
    arrays = _read(path, where)
    unknown = sorted(set(arrays) - set(_ARRAYS))
    if unknown:
        raise InputError(f"{where}: unknown array(s) {', '.join(unknown)}; allowed: {', '.join(_ARRAYS)}")
    needed = ["logits", *(["member"] if attack else [])]
    if any(name.startswith("shadow_") for name in arrays):
        needed += ["shadow_logits", "shadow_member"]
    missing = [name for name in needed if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "none"
        raise InputError(f"{where}: missing array(s) {', '.join(missing)}; found: {found}")

    logits = _logits(arrays["logits"], f"{where}: logits")
    classes = logits.shape[1]
    shadow = None
    if "shadow_logits" in arrays:
        rows = _logits(arrays["shadow_logits"], f"{where}: shadow_logits")
        if rows.shape[1] != classes:
            raise InputError(f"{where}: shadow_logits has {rows.shape[1]} classes; logits has {classes}")
        shadow_member = _member(arrays["shadow_member"], len(rows), f"{where}: shadow_member")
        shadow = ShadowLogits(rows, shadow_member, _labels(arrays, "shadow_labels", len(rows), classes, where))
    member = _member(arrays["member"], len(logits), f"{where}: member") if "member" in arrays else None
    return LogitsData(logits, member, _labels(arrays, "labels", len(logits), classes, where), shadow)


def _read(path: str | Path, where: str) -> dict[str, npt.NDArray[np.generic]]:
    try:
        # Opened here, since numpy leaves a file open that turns out to be a broken archive.
        with Path(path).open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{where}: a single array; expected an .npz: np.savez(path, logits=...)")
            with archive:
                return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, UnpicklingError) as error:
        raise InputError(f"{where}: not an .npz of plain arrays ({error}); write it with np.savez") from None


def _logits(array: npt.NDArray[np.generic], field: str) -> FloatArray:
    if array.dtype.kind not in "iuf" or array.ndim != 2 or len(array) == 0 or array.shape[1] < 2:
        raise InputError(
            f"{field}: found type {array.dtype}, shape {array.shape}; expected numbers, shape (n, classes) "
            "with n >= 1 and classes >= 2"
        )
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"{field}: holds NaN or infinite values; all logits must be finite")
    return numbers


def _member(array: npt.NDArray[np.generic], rows: int, field: str) -> IndexArray:
    truth = check_member(array, field)
    if len(truth) != rows:
        raise InputError(f"{field}: found {len(truth)} entries for {rows} rows of logits")
    return truth


def _labels(
    arrays: dict[str, npt.NDArray[np.generic]], name: str, rows: int, classes: int, where: str
) -> IndexArray | None:
    if name not in arrays:
        return None
    array = arrays[name]
    if array.dtype.kind not in "iu" or array.shape != (rows,):
        raise InputError(
            f"{where}: {name}: found type {array.dtype}, shape {array.shape}; "
            f"expected whole numbers, shape ({rows},)"
        )
    labels = array.astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"{where}: {name}: found classes {labels.min()} to {labels.max()}; allowed: 0 to {classes - 1}"
        )
    return labels
