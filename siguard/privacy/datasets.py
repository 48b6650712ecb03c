"""Data sets with a known split into members and non-members.

Location30 is the set of Shokri et al. (S&P 2017) and MemGuard (Jia et al., CCS 2019): check-ins in Bangkok,
446 binary features, 30 classes.  It is read from a path and never packaged.  Digits comes with scikit-learn.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from siguard.errors import InputError
from siguard.nn.model import FloatArray

IndexArray = npt.NDArray[np.int64]

LOCATION30_FEATURES = 446
LOCATION30_CLASSES = 30
_LOCATION30_FILE = "bangkok"
#: The published file has 4.5 MB; anything far larger is not it, and is not read into memory.
_LOCATION30_BYTES = 64 * 2**20
_LOCATION30_CURE = (
    "expected dataset_location.tgz from github.com/privacytrustlab/datasets, the file 'bangkok' in it, "
    "or a directory that holds either"
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled rows: features (n, d) float64 in 0..1, labels (n,) in 0..classes-1."""

    features: FloatArray
    labels: IndexArray
    name: str
    classes: int


@dataclass(frozen=True, eq=False)
class MembershipSplit:
    """Row numbers of a `Dataset` by what they are used for; all int64, shape (count,).

    members: train the target.  defender_out: non-members from which h learns.  evaluation_out: non-members
    that only the evaluation sees.  shadow_train[i], shadow_out[i]: "in" and "out" rows of the attacker's
    shadow model i; the shadow models may share rows with each other, with the first three never.
    Raises `InputError` if the parts overlap.
    """

    members: IndexArray
    defender_out: IndexArray
    evaluation_out: IndexArray
    shadow_train: tuple[IndexArray, ...]
    shadow_out: tuple[IndexArray, ...]

    def __post_init__(self) -> None:
        if len(self.shadow_train) != len(self.shadow_out):
            raise InputError(
                f"shadow_out: found {len(self.shadow_out)} parts; expected {len(self.shadow_train)} "
                "like shadow_train"
            )
        owned = {
            "members": self.members,
            "defender_out": self.defender_out,
            "evaluation_out": self.evaluation_out,
        }
        for index, (rows_in, rows_out) in enumerate(zip(self.shadow_train, self.shadow_out, strict=True)):
            pair = {f"shadow_train[{index}]": rows_in, f"shadow_out[{index}]": rows_out}
            parts = list((owned | pair).items())
            for position, (name, rows) in enumerate(parts):
                for other, more in parts[:position]:
                    if np.intersect1d(rows, more).size:
                        raise InputError(f"{name}: it shares rows with {other}; membership would be undefined")

    @property
    def evaluation(self) -> IndexArray:
        """The rows on which attacks are scored: members, then evaluation non-members."""
        return np.concatenate([self.members, self.evaluation_out])

    @property
    def evaluation_member(self) -> IndexArray:
        """1 for each member and 0 for each non-member of `evaluation`."""
        return np.repeat([1, 0], [len(self.members), len(self.evaluation_out)])


def digits() -> Dataset:
    """The 1,797 scans of handwritten digits from scikit-learn: 64 features (grey level / 16), 10 classes."""
    from sklearn.datasets import load_digits  # here, so that the other loaders work without the extra "eval"

    features, labels = load_digits(return_X_y=True)
    return Dataset(features / 16.0, labels.astype(np.int64), "digits", 10)


def digits_split(dataset: Dataset, *, rows: int = 150, shadows: int = 4, seed: int = 0) -> MembershipSplit:
    """A random split of digits: ``rows`` each of members, non-members for h and evaluation non-members.

    Few training rows, because digits is easy: with many, the target generalises and nothing leaks that a
    guard could hide.  (150 rows, clean labels: gradient boosting reaches an AUC of about 0.7 undefended.)
    The rest is the attacker's pool, from which each of ``shadows`` shadow models gets ``rows`` "in" and
    ``rows`` "out" rows of its own at random.  Raises `InputError` where the data set is too small.
    """
    total = len(dataset.labels)
    if rows < 1 or shadows < 1 or 5 * rows > total:
        raise InputError(
            f"rows, shadows: found {rows}, {shadows}; allowed: at least 1, and rows at most {total // 5} "
            f"(five disjoint parts of {total} rows)"
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(total)
    pool = order[3 * rows :]
    draws = [generator.permutation(pool)[: 2 * rows] for _ in range(shadows)]
    return MembershipSplit(
        order[:rows],
        order[rows : 2 * rows],
        order[2 * rows : 3 * rows],
        tuple(draw[:rows] for draw in draws),
        tuple(draw[rows:] for draw in draws),
    )


def location30(path: str | Path) -> Dataset:
    """Read Location30 from the published archive, the file ``bangkok`` in it, or a directory with either.

    Returns features (n, 446) of 0.0 and 1.0 and labels 0..29 (the file counts from 1), rows in file order.
    The archive is read in memory and never unpacked.  Raises `InputError` naming the file and line.
    """
    location = Path(path)
    if location.is_dir():
        found = [file for file in sorted(location.iterdir()) if _looks_like_location30(file)]
        if not found:
            raise InputError(f"location30: nothing to read in directory {location}; {_LOCATION30_CURE}")
        location = found[0]
    if not location.is_file():
        raise InputError(f"location30: no such file {location}; {_LOCATION30_CURE}")
    try:
        is_archive = tarfile.is_tarfile(location)
        raw = _member_of_archive(location) if is_archive else _bounded(location)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise InputError(f"location30: cannot read {location} ({error}); {_LOCATION30_CURE}") from None
    return _parse_location30(raw, location)


def location30_split(dataset: Dataset) -> MembershipSplit:
    """MemGuard's split by file order: 1,000 members, 1,000 for h, 1,000 for evaluation, 1,000 + 1,000 shadow.

    Raises `InputError` if there are fewer than 5,000 rows.
    """
    if len(dataset.labels) < 5000:
        raise InputError(f"location30: found {len(dataset.labels)} rows; MemGuard's split needs 5000")
    parts = np.arange(5000, dtype=np.int64).reshape(5, 1000)
    return MembershipSplit(parts[0], parts[1], parts[2], (parts[3],), (parts[4],))


def _looks_like_location30(file: Path) -> bool:
    return file.is_file() and (file.name == _LOCATION30_FILE or file.name.endswith((".tgz", ".tar.gz")))


def _bounded(file: Path) -> bytes:
    if file.stat().st_size > _LOCATION30_BYTES:
        raise InputError(f"location30: {file} has {file.stat().st_size} bytes; {_LOCATION30_CURE}")
    return file.read_bytes()


def _member_of_archive(archive: Path) -> bytes:
    """The contents of the regular file ``bangkok``, wherever it lies in the archive, read in memory."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isfile() and PurePosixPath(entry.name).name == _LOCATION30_FILE:
                if entry.size > _LOCATION30_BYTES:
                    raise InputError(f"location30: {entry.name} in {archive} has {entry.size} bytes; too many")
                stream = tar.extractfile(entry)
                if stream is not None:
                    return stream.read()
    raise InputError(f"location30: archive {archive} holds no file '{_LOCATION30_FILE}'; {_LOCATION30_CURE}")


def _parse_location30(raw: bytes, source: Path) -> Dataset:
    """Lines of ``"class",0,1,...``: the class 1..30, in quotes in the published file, then 446 bits."""
    try:
        lines = raw.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"location30: {source} is not a text file; {_LOCATION30_CURE}") from None
    labels, rows = [], []
    for number, line in enumerate(lines, start=1):
        label, *bits = line.split(",")
        where = f"location30: {source} line {number}"
        if len(bits) != LOCATION30_FEATURES:
            raise InputError(
                f"{where}: found {len(bits) + 1} fields; "
                f"expected {LOCATION30_FEATURES + 1}, the class and {LOCATION30_FEATURES} bits"
            )
        text = label.strip().strip('"')
        if not text.isdecimal() or not 1 <= int(text) <= LOCATION30_CLASSES:
            raise InputError(f"{where}: found class {text[:20]!r}; allowed: 1 to {LOCATION30_CLASSES}")
        wrong = set(bits) - {"0", "1"}
        if wrong:
            raise InputError(f"{where}: found feature {min(wrong)[:20]!r}; allowed: 0 or 1")
        labels.append(int(text) - 1)
        rows.append([bit == "1" for bit in bits])
    if not rows:
        raise InputError(f"location30: {source} is empty; {_LOCATION30_CURE}")
    return Dataset(
        np.array(rows, dtype=np.float64), np.array(labels, dtype=np.int64), "location30", LOCATION30_CLASSES
    )
