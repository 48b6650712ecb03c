"""The ``.npz`` of logits: every missing, unknown or malformed array is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siguard.errors import InputError
from siguard.privacy.logits_file import load_logits


def good(rows: int = 6) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "logits": generator.normal(size=(rows, 3)),
        "member": np.arange(rows) % 2,
        "labels": np.arange(rows) % 3,
        "shadow_logits": generator.normal(size=(4, 3)),
        "shadow_member": np.array([1, 1, 0, 0]),
        "shadow_labels": np.array([0, 1, 2, 0]),
    }


def write(path: Path, arrays: dict[str, Any]) -> Path:
    file = path / "logits.npz"
    np.savez(file, **arrays)
    return file


def test_reads_all_arrays(tmp_path: Path) -> None:
    arrays = good()
    data = load_logits(write(tmp_path, arrays))
    assert (data.logits == arrays["logits"]).all()
    assert data.member is not None
    assert data.member.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.shadow is not None
    assert data.shadow.member.tolist() == [1, 1, 0, 0]
    assert data.shadow.labels is not None
    assert data.with_attacker_rows() is data


def test_optional_arrays_may_be_absent(tmp_path: Path) -> None:
    arrays = good()
    data = load_logits(write(tmp_path, {name: arrays[name] for name in ("logits", "member")}))
    assert data.labels is None
    assert data.shadow is None
    only_logits = write(tmp_path, {"logits": arrays["logits"]})
    assert load_logits(only_logits, attack=False).member is None
    with pytest.raises(InputError, match=r"missing array\(s\) member; found: logits"):
        load_logits(only_logits)


def test_without_shadow_data_half_of_each_kind_goes_to_the_attacker(tmp_path: Path) -> None:
    arrays = good(rows=20)
    kept = {name: arrays[name] for name in ("logits", "member", "labels")}
    data = load_logits(write(tmp_path, kept)).with_attacker_rows(seed=3)
    assert data.shadow is not None
    assert data.shadow.labels is not None
    assert data.member is not None
    assert data.labels is not None
    assert data.shadow.member.sum() == data.member.sum() == 5
    both = np.concatenate([data.logits, data.shadow.logits])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, arrays["logits"].tolist()))
    where = [arrays["logits"].tolist().index(row) for row in both.tolist()]
    assert (np.concatenate([data.member, data.shadow.member]) == arrays["member"][where]).all()
    assert (np.concatenate([data.labels, data.shadow.labels]) == arrays["labels"][where]).all()


def test_too_few_rows_to_give_away(tmp_path: Path) -> None:
    data = load_logits(write(tmp_path, {"logits": np.zeros((4, 3)), "member": [1, 0, 0, 0]}))
    with pytest.raises(InputError, match=r"member: found 1 row\(s\) of 1"):
        data.with_attacker_rows()
    no_member = load_logits(write(tmp_path, {"logits": np.zeros((4, 3))}), attack=False)
    with pytest.raises(InputError, match="member: the logits file has no such array"):
        no_member.with_attacker_rows()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logits", None, r"missing array\(s\) logits; found: labels, member"),
        ("shadow_member", None, r"missing array\(s\) shadow_member"),
        ("shadow_logits", None, r"missing array\(s\) shadow_logits"),
        ("label", np.zeros(6), r"unknown array\(s\) label; allowed: logits, member, labels"),
        ("logits", np.zeros(6), r"logits: found type float64, shape \(6,\); expected numbers"),
        ("logits", np.zeros((0, 3)), r"logits: found type float64, shape \(0, 3\)"),
        ("logits", np.zeros((6, 1)), r"logits: .*classes >= 2"),
        ("logits", np.full((6, 3), "a"), "logits: found type <U1"),
        ("logits", np.full((6, 3), np.inf), "logits: holds NaN or infinite"),
        ("member", np.array([1, 0]), "member: found 2 entries for 6 rows"),
        ("member", np.ones(6), "member: found 6 members among 6 rows"),
        ("member", np.full(6, 3), "member: found type int64 and values other than 0 and 1"),
        ("labels", np.zeros(5, dtype=int), r"labels: found type int64, shape \(5,\)"),
        ("labels", np.zeros(6), "labels: found type float64"),
        ("labels", np.full(6, 3), "labels: found classes 3 to 3; allowed: 0 to 2"),
        ("shadow_logits", np.zeros((4, 2)), "shadow_logits has 2 classes; logits has 3"),
        ("shadow_member", np.array([1, 0, 1]), "shadow_member: found 3 entries for 4 rows"),
        ("shadow_labels", np.array([0, 1, 2, 9]), "shadow_labels: found classes 0 to 9"),
    ],
)
def test_names_what_is_wrong(tmp_path: Path, name: str, value: Any, message: str) -> None:
    arrays = good()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    with pytest.raises(InputError, match=r"^logits file .*logits.npz: " + message):
        load_logits(write(tmp_path, arrays))


def test_files_that_are_not_an_archive_of_plain_arrays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.npz: no such file"):
        load_logits(tmp_path / "absent.npz")
    text = tmp_path / "text.npz"
    text.write_text("logits")
    with pytest.raises(InputError, match=r"text.npz: not an .npz of plain arrays"):
        load_logits(text)
    np.save(tmp_path / "single.npy", np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"a single array; expected an .npz"):
        load_logits(tmp_path / "single.npy")
    whole = write(tmp_path, good()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.npz: not an .npz of plain arrays"):
        load_logits(tmp_path / "cut.npz")
    objects = np.array([[None, {}], [1, 2]], dtype=object)  # numpy would pickle these
    with pytest.raises(InputError, match=r"not an .npz of plain arrays"):
        load_logits(write(tmp_path, {"logits": objects, "member": [0, 1]}))
