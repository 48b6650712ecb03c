"""What a server holds of the model owner's: shares of networks, and the guards that may run with them.

With a folder, everything is written there as it arrives, so that a server that starts again has it.  A folder holds
one server's parts only; together with another server's folder it is the networks in the clear, so it is as secret
as a key file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from siguard.actors.messages import Grant, Load, Offer, grant_bytes, read_grant
from siguard.actors.session import SERVERS
from siguard.errors import InputError, PartyFailedError, PolicyError, ProtocolError
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.mpc.share import Share
from siguard.nn.shared import SharedModel
from siguard.ring import Z64

#: How the files of a folder begin, by what they hold.
_GRANT, _NETWORK = "grant-", "network-"
_KINDS = ("defender", "model")


class Holdings:
    """The shares and grants of one server.

    folder: where they are kept; None for in memory only.  Raises `InputError` naming a file that cannot be read.
    """

    def __init__(self, server: str, owner_key: VerifyKey, folder: Path | None = None) -> None:
        self._server = server
        self._owner_key = owner_key
        self._folder = folder
        self._defenders: dict[bytes, SharedDefender] = {}
        self._models: dict[bytes, SharedModel] = {}
        self._labels: dict[bytes, str] = {}
        self._granted: dict[bytes, bytes] = {}
        if folder is not None:
            self._read_folder(folder)

    def __len__(self) -> int:
        return len(self._defenders) + len(self._models)

    def networks(self, defender: bytes, model: bytes) -> tuple[SharedDefender, SharedModel | None]:
        """Shares of networks by name; KeyError where there is none, None for no model."""
        return self._defenders[defender], self._models[model] if model else None

    def allows(self, defender: bytes, model: bytes, config: GuardConfig) -> bool:
        """Whether the owner signed this configuration for these networks."""
        return grant_bytes(defender, model, config) in self._granted

    def offers(self) -> list[dict[str, Any]]:
        """Each signed guard configuration with the networks it is for, where both are held."""
        found = []
        for statement, signature in self._granted.items():
            defender, model, _ = read_grant(statement)
            if defender not in self._defenders or (model and model not in self._models):
                continue
            offer = Offer(
                statement,
                signature,
                self._labels.get(model, ""),
                list(self._models[model].shape) if model else [],
                list(self._defenders[defender].shape),
                list(self._defenders[defender].magnitude_bits),
                self._models[model].feature_limit if model else 0.0,
            )
            found.append(offer.as_dict())
        return found

    # What the owner sends ---------------------------------------------------------------------------------

    def accept_grant(self, grant: Grant) -> None:
        """Take a permission.

        Raises `PolicyError` unless the owner signed it, `PartyFailedError` if it cannot be kept.
        """
        self._check(grant)
        self._write(f"{_GRANT}{grant.signature.hex()[:32]}", grant.as_dict())
        self._granted[grant.grant] = grant.signature

    def _check(self, grant: Grant) -> None:
        try:
            self._owner_key.verify(grant.grant, grant.signature)
        except (BadSignatureError, ValueError):  # the second: not as long as a signature
            raise PolicyError("a grant is not signed by the model owner's key", party="owner") from None

    def accept_network(self, load: Load, arrays: Sequence[Share]) -> None:
        """Take a shared network.

        Raises `ProtocolError` for a kind that is not known, `PartyFailedError` if it cannot be kept.
        """
        if load.kind not in _KINDS:
            raise ProtocolError(f"unknown network kind {load.kind!r}", party="owner")
        parts = [part.tobytes() for share in arrays for part in (share.first, share.second)]
        self._write(f"{_NETWORK}{load.name.hex()}", [load.as_dict(), parts])
        self._keep(load, arrays)

    def _keep(self, load: Load, arrays: Sequence[Share]) -> None:
        if load.kind == "defender":
            *layers, gradient = (int(bits) for bits in load.public)
            self._defenders[load.name] = SharedDefender(list(arrays), layers, gradient)
        else:
            self._models[load.name] = SharedModel(list(arrays), load.public[0])
        self._labels[load.name] = load.label

    # The folder -------------------------------------------------------------------------------------------

    def _read_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be used as {self._server}'s state ({error.strerror})", party=self._server
            ) from None
        for path in paths:
            # What else is there is not this server's: half a file of an earlier attempt, for instance.
            if path.name.startswith((_GRANT, _NETWORK)):
                self._read(path)

    def _read(self, path: Path) -> None:
        try:
            server, content = msgpack.unpackb(path.read_bytes())
            if server not in SERVERS:
                raise ValueError(server)
            if server == self._server:
                if path.name.startswith(_GRANT):
                    grant = Grant.from_values(content)
                    self._check(grant)
                    self._granted[grant.grant] = grant.signature
                else:
                    load = Load.from_values(content[0])
                    self._keep(load, _shares(load, content[1], SERVERS.index(server)))
        except (OSError, ValueError, TypeError, IndexError, KeyError, ProtocolError, PolicyError) as error:
            raise InputError(
                f"{path}: not what {self._server} wrote there ({type(error).__name__}); remove the file, and "
                "let the owner share the network again",
                party=self._server,
            ) from None
        if server != self._server:
            # Its parts, in another role, would give other confidences without a word.
            raise InputError(
                f"{path}: the state of {server}, not of {self._server}; every server has a folder of its own",
                party=self._server,
            )

    @property
    def is_kept(self) -> bool:
        """Whether there is a folder: writing to it takes a while."""
        return self._folder is not None

    def _write(self, name: str, content: Any) -> None:
        """Write a file that only its owner can read, whole or not at all; nothing without a folder."""
        if self._folder is None:
            return
        path = self._folder / name
        draft = path.with_name(f".{name}.draft")
        try:
            try:
                with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(msgpack.packb([self._server, content]))
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise PartyFailedError(
                f"{self._server} cannot keep what the owner sent: {path} ({error.strerror})", party=self._server
            ) from None


def _shares(load: Load, parts: Sequence[bytes], role: int) -> list[Share]:
    firsts, seconds = parts[::2], parts[1::2]
    return [
        Share(role, Z64, Z64.from_bytes(first, tuple(shape)), Z64.from_bytes(second, tuple(shape)), 0)
        for shape, first, second in zip(load.shapes, firsts, seconds, strict=True)
    ]
