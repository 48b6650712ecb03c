"""Key files: who can read them, what they are refused for, and that no message holds a key."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from siguard.deploy.keys import parse_public, public_text, read_key, write_key
from siguard.errors import InputError
from siguard.transport.identity import fingerprint

KEY = SigningKey(bytes(range(32)))
SEED = base64.b64encode(bytes(KEY)).decode()
OTHER = SigningKey(bytes(32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "keys" / "S0.key"
    write_key(place, "S0", KEY)
    return place


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(file: Path, name: str = "S0", pinned: SigningKey | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_key(file, name, pinned.verify_key if pinned is not None else None)
    message = str(caught.value)
    assert str(file) in message
    for key in (KEY, OTHER):
        for form in (SEED, SEED[:16], bytes(key).hex(), repr(bytes(key))):
            assert form not in message
    return message


def test_what_is_written_is_read_back(file: Path) -> None:
    identity = read_key(file, "S0", KEY.verify_key)
    assert identity.name == "S0"
    assert identity.signing_key == KEY
    for form in (SEED, bytes(KEY).hex(), repr(bytes(KEY))[2:12]):
        assert form not in repr(identity)


def test_the_format_is_one_line_and_a_comment(file: Path) -> None:
    comment, line, end = file.read_text(encoding="ascii").split("\n")
    assert comment.startswith("# The secret key of S0")
    assert line == f"siguard-secret-key-1 S0 {SEED}"
    assert end == ""


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277])
def test_only_its_owner_can_use_a_key_file_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    file = tmp_path / "keys" / "S0.key"
    with umask(mask & 0o077):
        file.parent.mkdir(0o700)
    with umask(mask):
        write_key(file, "S0", KEY)
    assert permissions(file) == 0o600
    with umask(mask & 0o077):
        write_key(tmp_path / "new" / "S0.key", "S0", KEY)
    assert permissions(tmp_path / "new") == 0o700


def test_the_file_is_never_open_to_others_not_even_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append((permissions(place), os.fstat(descriptor).st_size))
        fsync(descriptor)

    created: list[int] = []
    real_open = os.open

    def opened(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        created.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    place = tmp_path / "S0.key"
    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "open", opened)
    with umask(0):
        write_key(place, "S0", KEY)
    assert created == [0o600]
    ((mode, size),) = seen
    assert mode == 0o600
    assert size == place.stat().st_size


def test_an_existing_key_is_only_replaced_on_demand(file: Path) -> None:
    with pytest.raises(InputError, match=r"S0\.key: exists.*--force"):
        write_key(file, "S0", OTHER)
    assert read_key(file, "S0").signing_key == KEY
    file.chmod(0o644)
    write_key(file, "S0", OTHER, force=True)
    assert read_key(file, "S0").signing_key == OTHER
    assert os.listdir(file.parent) == ["S0.key"]  # noqa: PTH208 - every name, dot files too


def test_a_link_is_not_written_through(file: Path) -> None:
    target = file.with_name("target")
    link = file.with_name("S1.key")
    link.symlink_to(target)
    with pytest.raises(InputError, match=r"S1\.key: exists"):
        write_key(link, "S1", OTHER)
    assert not target.exists()
    write_key(link, "S1", OTHER, force=True)
    assert not target.exists()
    assert not link.is_symlink()


def test_a_failed_write_leaves_no_half_key(tmp_path: Path) -> None:
    """With a limit on the size of a file, as a full disk would do it."""
    code = (
        "import resource, sys; from pathlib import Path; from nacl.signing import SigningKey\n"
        "from siguard.deploy.keys import write_key\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "for force in (False, True):\n"
        "    try: write_key(Path(sys.argv[1]), 'S0', SigningKey.generate(), force=force)\n"
        "    except Exception as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "S0.key")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.count("cannot be written (File too large)") == 2, ran.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o660, 0o777])
def test_a_key_file_that_others_can_use_is_refused_with_the_cure(file: Path, mode: int) -> None:
    file.chmod(mode)
    message = refusal(file)
    assert f"mode {mode:04o}" in message
    assert message.endswith(f"run: chmod 600 {file}")
    file.chmod(0o400)
    assert read_key(file, "S0").signing_key == KEY


def test_the_key_of_another_party_is_named_as_such(file: Path) -> None:
    assert "this is the key of 'S0', not 'S1'" in refusal(file, "S1")


def test_a_key_that_the_deployment_does_not_pin(file: Path) -> None:
    message = refusal(file, pinned=OTHER)
    assert message.startswith(f"{file} does not belong to the key that deployment.toml pins for S0: ")
    for key in (KEY, OTHER):
        assert fingerprint(key.verify_key) in message
    assert public_text(KEY.verify_key) in message


LINE = f"siguard-secret-key-1 S0 {SEED}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "not a key file"),
        ("# a comment\n", "not a key file"),
        (f"{LINE}\n{LINE}\n", "not a key file"),
        (f"{SEED}\n", "not a key file"),
        (public_text(KEY.verify_key), "not a key file"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "not a key file"),
        (LINE + "\n#" + "x" * 4096, "not a key file"),
        (LINE.replace("key-1", "key-2"), "a key file of another version"),
        ("siguard-secret-key-1", "damaged"),
        ("siguard-secret-key-1 S0", "damaged"),
        (LINE + " more", "damaged"),
        (LINE[:-2], "damaged"),
        (LINE[:-2] + "é=", "damaged"),
        (LINE[:-2] + "9=", "damaged"),  # bits after the last byte
        ("siguard-secret-key-1 S0 " + SEED[:40], "damaged"),
    ],
)
def test_a_file_of_another_form_is_refused(file: Path, content: str, told: str) -> None:
    file.write_text(content, encoding="utf-8")
    assert told in refusal(file)


def test_spaces_and_comments_do_not_matter(file: Path) -> None:
    file.write_text(f"# one\n\n  {LINE}  \r\n# two\n", encoding="ascii")
    assert read_key(file, "S0").signing_key == KEY


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "no such key file; make one with siguard keygen" in refusal(tmp_path / "S0.key")
    assert "not even a file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "not even a file" in refusal(tmp_path / "pipe")
    (tmp_path / "file").write_text("", encoding="ascii")
    assert "cannot be read (Not a directory)" in refusal(tmp_path / "file" / "S0.key")
    with pytest.raises(InputError, match="file: cannot be made a folder"):
        write_key(tmp_path / "file" / "S0.key", "S0", KEY)
    with pytest.raises(InputError, match="cannot be written"):
        write_key(tmp_path, "S0", KEY, force=True)
    assert not tmp_path.with_name(f"{tmp_path.name}.tmp").exists()


@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_has_one_text(seed: bytes) -> None:
    key = SigningKey(seed).verify_key
    text = public_text(key)
    assert text == "ed25519:" + base64.b64encode(bytes(key)).decode()
    assert parse_public(text) == key


@given(st.text() | st.text().map("ed25519:".__add__) | st.integers() | st.none() | st.binary())
def test_anything_else_is_refused_without_being_repeated(value: object) -> None:
    with pytest.raises(InputError) as caught:
        parse_public(value)
    assert "siguard keygen" in str(caught.value)
    assert len(str(value)) < 12 or str(value) not in str(caught.value)


def test_a_fingerprint_is_the_start_of_blake2b() -> None:
    expected = hashlib.blake2b(bytes(KEY.verify_key), digest_size=32).hexdigest()[:16]
    assert fingerprint(KEY.verify_key) == expected
    assert fingerprint(OTHER.verify_key) != expected
