"""Loaders: what is read, and that everything wrong is named with the cure."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from siguard.errors import InputError
from siguard.privacy.datasets import (
    LOCATION30_FEATURES,
    Dataset,
    MembershipSplit,
    digits,
    digits_split,
    location30,
    location30_split,
)

REAL_LOCATION30 = Path(__file__).parents[3] / "shared" / "data" / "location30"


def text_of(labels: list[int], seed: int = 0) -> str:
    bits = np.random.default_rng(seed).integers(0, 2, (len(labels), LOCATION30_FEATURES))
    return "".join(
        f'"{label}",{",".join(map(str, row))}\n' for label, row in zip(labels, bits.tolist(), strict=True)
    )


def archive(path: Path, name: str, contents: bytes, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.type = kind
        entry.size = len(contents)
        tar.addfile(entry, io.BytesIO(contents))
    return path


def test_location30_reads_the_archive_the_file_and_the_directory(tmp_path: Path) -> None:
    text = text_of([1, 30, 7])
    packed = archive(tmp_path / "location30.tgz", "some/folder/bangkok", text.encode())
    plain = tmp_path / "plain" / "bangkok"
    plain.parent.mkdir()
    plain.write_text(text)
    read = [location30(path) for path in (packed, str(packed), plain, tmp_path, plain.parent)]
    for dataset in read:
        assert dataset.name == "location30"
        assert dataset.classes == 30
        assert dataset.labels.tolist() == [0, 29, 6]
        assert dataset.features.dtype == np.float64
        assert (dataset.features == read[0].features).all()
    expected = np.random.default_rng(0).integers(0, 2, (3, LOCATION30_FEATURES))
    assert (read[0].features == expected).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["location30.tgz", "plain"], "nothing unpacked"


def test_location30_takes_labels_without_quotes(tmp_path: Path) -> None:
    (tmp_path / "bangkok").write_text(text_of([3]).replace('"', ""))
    assert location30(tmp_path).labels.tolist() == [2]


def broken(text: str, change: str) -> str:
    lines = text.splitlines()
    lines[1] = {
        "too few fields": lines[1].rsplit(",", 1)[0],
        "too many fields": lines[1] + ",0",
        "class 0": '"0"' + lines[1][3:],
        "class 31": '"31"' + lines[1][3:],
        "class x": '"x"' + lines[1][3:],
        "feature 2": lines[1][:-1] + "2",
        "empty line": "",
    }[change]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("too few fields", "line 2: found 446 fields; expected 447"),
        ("too many fields", "line 2: found 448 fields; expected 447"),
        ("class 0", "line 2: found class '0'; allowed: 1 to 30"),
        ("class 31", "line 2: found class '31'; allowed: 1 to 30"),
        ("class x", "line 2: found class 'x'; allowed: 1 to 30"),
        ("feature 2", "line 2: found feature '2'; allowed: 0 or 1"),
        ("empty line", "line 2: found 1 fields; expected 447"),
    ],
)
def test_location30_names_the_malformed_line(tmp_path: Path, change: str, message: str) -> None:
    (tmp_path / "bangkok").write_text(broken(text_of([1, 2, 3]), change))
    with pytest.raises(InputError, match=message):
        location30(tmp_path / "bangkok")


def test_location30_names_what_is_missing_and_the_cure(tmp_path: Path) -> None:
    cure = "expected dataset_location.tgz from github.com/privacytrustlab/datasets"
    with pytest.raises(InputError, match=f"no such file .*nowhere; {cure}"):
        location30(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"nothing to read in directory .*; {cure}"):
        location30(tmp_path)
    with pytest.raises(InputError, match="holds no file 'bangkok'"):
        location30(archive(tmp_path / "other.tgz", "paris", b"1,0"))
    with pytest.raises(InputError, match="holds no file 'bangkok'"):
        location30(archive(tmp_path / "folder.tgz", "bangkok", b"", tarfile.DIRTYPE))
    (tmp_path / "bangkok").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(InputError, match="is not a text file"):
        location30(tmp_path / "bangkok")
    (tmp_path / "bangkok").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        location30(tmp_path / "bangkok")


def test_location30_refuses_a_truncated_archive(tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.tgz", "bangkok", text_of([1] * 200).encode()).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"location30: cannot read .*cut.tgz"):
        location30(tmp_path / "cut.tgz")


def test_location30_refuses_a_file_that_is_far_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siguard.privacy.datasets._LOCATION30_BYTES", 1000)
    text = text_of([1, 2]).encode()
    (tmp_path / "bangkok").write_bytes(text)
    for path in (tmp_path / "bangkok", archive(tmp_path / "large.tgz", "bangkok", text)):
        with pytest.raises(InputError, match=f"has {len(text)} bytes"):
            location30(path)


def test_location30_split_is_memguards() -> None:
    dataset = Dataset(np.zeros((5010, 1)), np.zeros(5010, dtype=np.int64), "location30", 30)
    split = location30_split(dataset)
    assert (split.members[[0, -1]] == (0, 999)).all()
    assert (split.defender_out[[0, -1]] == (1000, 1999)).all()
    assert (split.evaluation_out[[0, -1]] == (2000, 2999)).all()
    assert (split.shadow_train[0][[0, -1]] == (3000, 3999)).all()
    assert (split.shadow_out[0][[0, -1]] == (4000, 4999)).all()
    assert split.evaluation[[0, 999, 1000, 1999]].tolist() == [0, 999, 2000, 2999]
    assert split.evaluation_member.tolist() == [1] * 1000 + [0] * 1000
    with pytest.raises(InputError, match="found 3 rows; MemGuard's split needs 5000"):
        location30_split(Dataset(np.zeros((3, 1)), np.zeros(3, dtype=np.int64), "location30", 30))


def test_digits_are_scaled_and_split_without_overlap() -> None:
    dataset = digits()
    assert dataset.features.shape == (1797, 64)
    assert dataset.features.min() == 0.0
    assert dataset.features.max() == 1.0
    assert sorted(set(dataset.labels.tolist())) == list(range(10))
    split = digits_split(dataset, rows=100, shadows=3, seed=1)
    own = np.concatenate([split.members, split.defender_out, split.evaluation_out])
    assert len(np.unique(own)) == 300
    assert len(split.shadow_train) == len(split.shadow_out) == 3
    for rows_in, rows_out in zip(split.shadow_train, split.shadow_out, strict=True):
        assert len(np.unique(np.concatenate([rows_in, rows_out, own]))) == 500
    assert (digits_split(dataset, rows=100, shadows=3, seed=1).members == split.members).all()
    assert (digits_split(dataset, rows=100, shadows=3, seed=2).members != split.members).any()


@pytest.mark.parametrize(("rows", "shadows"), [(0, 1), (1, 0), (360, 1)])
def test_digits_split_refuses_impossible_sizes(rows: int, shadows: int) -> None:
    with pytest.raises(InputError, match=r"^rows, shadows: found .*rows at most 359"):
        digits_split(digits(), rows=rows, shadows=shadows)


def test_a_split_with_an_ambiguous_membership_is_refused() -> None:
    a, b, c, d, e = np.arange(10).reshape(5, 2)
    MembershipSplit(a, b, c, (d, e), (e, d))  # shadow models may share rows with each other
    with pytest.raises(InputError, match=r"^evaluation_out: it shares rows with members"):
        MembershipSplit(a, b, a, (d,), (e,))
    with pytest.raises(InputError, match=r"^shadow_out\[0\]: it shares rows with shadow_train\[0\]"):
        MembershipSplit(a, b, c, (d,), (d,))
    with pytest.raises(InputError, match=r"^shadow_train\[1\]: it shares rows with members"):
        MembershipSplit(a, b, c, (d, a), (e, e))
    with pytest.raises(InputError, match=r"^shadow_out: found 2 parts; expected 1"):
        MembershipSplit(a, b, c, (d,), (e, e))


@pytest.mark.skipif(not REAL_LOCATION30.exists(), reason="Location30 is not beside the checkout")
def test_the_published_location30() -> None:
    dataset = location30(REAL_LOCATION30)
    assert dataset.features.shape == (5010, LOCATION30_FEATURES)
    assert np.bincount(dataset.labels, minlength=30).min() >= 90
    assert set(np.unique(dataset.features)) == {0.0, 1.0}
    location30_split(dataset)
