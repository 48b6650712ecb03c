"""Identity keys: public ones as text, and the secret one of a party in a file of its own.

A key file is text: a comment, then one line ``siguard-secret-key-1 NAME SEED`` with the Ed25519 seed in base64.
No message and no exception of this module holds a seed or what a key file contains.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.signing import SigningKey, VerifyKey

from siguard.errors import InputError
from siguard.transport.identity import fingerprint
from siguard.transport.secure import Identity

_PUBLIC = "ed25519:"
_SECRET = "siguard-secret-key-"  # noqa: S105 - how the line begins, not a secret
_VERSION = "1"
_SEED_BYTES = 32
_LARGEST = 4096  # bytes of a key file; what is larger is something else
#: What a public key looks like, for messages.
PUBLIC_ALLOWED = f'"{_PUBLIC}" and 32 bytes in base64, as siguard keygen prints it'


def public_text(key: VerifyKey) -> str:
    """The public key as it stands in deployment.toml."""
    return _PUBLIC + base64.b64encode(bytes(key)).decode("ascii")


def parse_public(text: object) -> VerifyKey:
    """The public key that `public_text` wrote; raises `InputError`, whose message does not repeat ``text``.

    Points of small order, whose signatures prove nothing, are refused, as is what is no point of the curve.
    """
    if isinstance(text, str) and _SECRET in text:
        raise InputError(
            "this is a secret key, and whoever has seen this file knows it now: make another one with "
            "siguard keygen, and put only its public line here"
        )
    data = _decoded(text.removeprefix(_PUBLIC)) if isinstance(text, str) and text.startswith(_PUBLIC) else None
    if data is None:
        raise InputError(f"not a public key; allowed: {PUBLIC_ALLOWED}")
    if not crypto_core_ed25519_is_valid_point(data):
        raise InputError("32 bytes that are no Ed25519 public key; paste the line that siguard keygen printed")
    return VerifyKey(data)


def default_key_file(config: Path, name: str) -> Path:
    """Where the key of a party is expected: ``keys/NAME.key`` beside the deployment file."""
    return config.parent / "keys" / f"{name}.key"


def write_key(file: Path, name: str, key: SigningKey, *, force: bool = False) -> None:
    """Write a key file that only its owner can read, from its first byte on; make its folder, mode 0700.

    An existing file is replaced, as a whole, only with ``force``; otherwise it raises `InputError`.
    """
    seed = base64.b64encode(bytes(key)).decode("ascii")
    text = (
        f"# The secret key of {name}: whoever reads this file can act as {name}.  Keep it on {name}'s host only.\n"
        f"{_SECRET}{_VERSION} {name} {seed}\n"
    )
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file.parent}: cannot be made a folder ({error.strerror})") from None
    try:
        if not force:
            _write_new(file, text)
            return
        draft = file.with_name(f"{file.name}.tmp")
        draft.unlink(missing_ok=True)  # of an attempt that was killed
        _write_new(draft, text)
        try:
            draft.replace(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise already_there(file) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from None


def already_there(file: Path) -> InputError:
    """Why a file is not written over."""
    return InputError(
        f"{file}: exists, and a key that is overwritten is lost; move it away, or pass --force to replace it"
    )


def _write_new(file: Path, text: str) -> None:
    """O_EXCL: neither an existing file nor a link that waits at its place is written through."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            os.fchmod(descriptor, 0o600)  # a umask may have taken the owner's rights
            out.write(text)
            out.flush()
            os.fsync(descriptor)
    except BaseException:
        file.unlink(missing_ok=True)  # half a key is worse than none
        raise


def read_key(
    file: Path, name: str, pinned: VerifyKey | None = None, pinned_by: str | Path = "deployment.toml"
) -> Identity:
    """The identity of party ``name`` from its key file.

    Raises `InputError` for a file that others can read, that is no key file or another party's, or whose public
    half is not ``pinned``, the key that the file ``pinned_by`` has for this party.
    """
    key = _parse(file, _read_private(file), name)
    if pinned is not None and key.verify_key != pinned:
        raise InputError(
            f"{file} does not belong to the key that {pinned_by} pins for {name}: its public key has the "
            f"fingerprint {fingerprint(key.verify_key)}, the pinned one {fingerprint(pinned)}; use the key file "
            f'made with that key, or set key = "{public_text(key.verify_key)}" for {name} on every host'
        )
    return Identity(name, key)


def _read_private(file: Path) -> bytes:
    try:
        # Not blocking: a pipe in the place of the file must not hold the party.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise InputError(f"{file}: not a key file, not even a file")
            if mode & 0o077:
                raise InputError(
                    f"{file}: others than its owner can use this secret key (mode {stat.S_IMODE(mode):04o}); "
                    f"run: chmod 600 {file}"
                )
            return os.read(descriptor, _LARGEST + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise InputError(f"{file}: no such key file; make one with siguard keygen, or say where it is") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _parse(file: Path, content: bytes, name: str) -> SigningKey:
    lines = [line.split() for line in content.splitlines() if line.strip() and not line.startswith(b"#")]
    if len(content) > _LARGEST or len(lines) != 1 or not lines[0][0].startswith(_SECRET.encode()):
        raise InputError(f"{file}: not a key file; expected one line that begins with {_SECRET}{_VERSION}")
    kind, *fields = (field.decode("ascii", "replace") for field in lines[0])
    if kind != _SECRET + _VERSION:
        raise InputError(f"{file}: a key file of another version; this program reads {_SECRET}{_VERSION}")
    seed = _decoded(fields[1]) if len(fields) == 2 else None
    if seed is None:
        raise InputError(
            f"{file}: damaged; expected {_SECRET}{_VERSION}, the party's name, and {_SEED_BYTES} bytes in base64; "
            "restore it from a copy, or make a new key with siguard keygen"
        )
    if fields[0] != name:
        raise InputError(
            f"{file}: this is the key of {fields[0]!r}, not {name!r}; pass {name}'s own key file, or start this "
            f"party as {fields[0]}"
        )
    return SigningKey(seed)


def _decoded(text: str) -> bytes | None:
    """32 bytes from their base64, None for anything else; bytes have one spelling only."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return data if len(data) == _SEED_BYTES and base64.b64encode(data).decode("ascii") == text else None
