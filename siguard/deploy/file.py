"""`DeploymentFile`: deployment.toml, the same on every host, with nothing secret in it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from nacl.signing import VerifyKey
from pydantic import BaseModel, ValidationError

from siguard.deploy.keys import default_key_file, public_text, read_key
from siguard.deploy.schema import (
    OWNER_NAME,
    SERVER_NAMES,
    LimitsSection,
    NetworkSection,
    Sections,
    ServerSection,
    join_address,
    parse_address,
)
from siguard.errors import InputError
from siguard.explain import Where, explain_validation, read_toml, unknown
from siguard.transport.secure import Identity

_Value = str | int | float | bool


@dataclass(frozen=True)
class Endpoint:
    """A server: where the others reach it, and the key that it must prove to have."""

    host: str
    port: int
    key: VerifyKey

    @property
    def address(self) -> str:
        """``host:port`` as it stands in the file."""
        return join_address(self.host, self.port)


@dataclass(frozen=True)
class DeploymentFile:
    """A validated deployment; schema.py has every key.

    file: where it was read from, the only field that differs between hosts and is part of no comparison.
    plaintext: TCP without sealing, for experiments; see `warnings`.
    """

    name: str
    servers: Mapping[str, Endpoint]
    owner_key: VerifyKey
    users: Mapping[str, VerifyKey]
    limits: LimitsSection = field(default_factory=LimitsSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    plaintext: bool = False
    file: Path = field(default=Path("deployment.toml"), compare=False)

    def known(self) -> dict[str, VerifyKey]:
        """Every party's name and key: servers, owner, users."""
        servers = {name: server.key for name, server in self.servers.items()}
        return {**servers, OWNER_NAME: self.owner_key, **self.users}

    def identity(self, name: str, key_file: Path | None = None) -> Identity:
        """What party ``name`` proves itself with, from its key file; its place by default `default_key_file`.

        Raises `InputError` for an unknown party and for every reason of `read_key`.
        """
        known = self.known()
        if name not in known:
            raise InputError(f"{self.file}: found {name!r}: {unknown(name, known, 'party')}")
        return read_key(key_file or default_key_file(self.file, name), name, known[name], self.file)

    def warnings(self) -> list[str]:
        """What whoever starts a party must be told, loudly."""
        told = []
        if self.plaintext:
            told.append(
                f"{self.file}: experiment.plaintext = true: NOTHING IS ENCRYPTED and nobody proves who they are; "
                "whoever sees two servers' links sees every logit; never with real data"
            )
        if self.network.as_profile() is not None:
            told.append(f"{self.file}: [network]: every party slows down what it sends, for an experiment")
        return told

    def digests(self) -> dict[str, str]:
        """For each entry 16 hex digits, equal exactly when two files have the same there: servers.S1.key, ..."""
        return {key: _digest([key, value], 8).hex() for key, value in self._entries().items()}

    def _entries(self) -> dict[str, _Value]:
        """The content as dotted keys, in the order in which it is written; defaults are spelled out."""
        entries: dict[str, _Value] = {"name": self.name}
        for name, server in sorted(self.servers.items()):
            entries[f"servers.{name}.address"] = server.address
            entries[f"servers.{name}.key"] = public_text(server.key)
        entries[f"{OWNER_NAME}.key"] = public_text(self.owner_key)
        for name, key in sorted(self.users.items()):
            entries[f"users.{name}.key"] = public_text(key)
        for section, model in (("limits", self.limits), ("network", self.network)):
            entries |= {f"{section}.{key}": value for key, value in _values(model)}
        entries["experiment.plaintext"] = self.plaintext
        return entries

    def to_toml(self) -> str:
        """The file's text; `load_deployment` reads it back to the same."""
        tables: dict[str, list[str]] = defaultdict(list)
        for dotted, value in self._entries().items():
            table, _, key = dotted.rpartition(".")
            tables[table].append(f"{key} = {_toml(value)}")
        blocks = ["# Who takes part in this deployment.  The same on every host; nothing in it is secret."]
        for table, lines in tables.items():
            blocks.append("\n".join([f"[{table}]", *lines] if table else lines))
        return "\n\n".join(blocks) + "\n"

    def write(self, file: Path, *, force: bool = False) -> None:
        """Write the text to ``file``; over an existing one only with ``force``.  Raises `InputError`."""
        if file.exists() and not force:
            raise InputError(f"{file}: exists; move it away, or pass --force to replace it")
        draft = file.with_name(f"{file.name}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(self.to_toml(), encoding="utf-8")
            draft.replace(file)
        except OSError as error:
            raise InputError(f"{file}: cannot be written ({error.strerror})") from None
        finally:
            with suppress(OSError):
                draft.unlink()


def load_deployment(path: str | Path) -> DeploymentFile:
    """Read and validate deployment.toml.

    Raises `InputError` with one line for each problem: file, key, what was found, what is allowed.
    """
    where = Where(Path(path))
    raw = read_toml(where, "a deployment in TOML, as siguard keygen makes one")
    try:
        sections = Sections.model_validate(raw)
    except ValidationError as error:
        raise explain_validation(where, Sections, error) from None
    servers: dict[str, ServerSection] = {name: getattr(sections.servers, name) for name in SERVER_NAMES}
    deployment = DeploymentFile(
        name=sections.name,
        servers=MappingProxyType({name: Endpoint(*one.address, key=one.key) for name, one in servers.items()}),
        owner_key=sections.owner.key,
        users=MappingProxyType({name: user.key for name, user in sections.users.items()}),
        limits=sections.limits,
        network=sections.network,
        plaintext=sections.experiment.plaintext,
        file=where.file,
    )
    problems = [where.line(key, problem) for key, problem in _told_apart(deployment)]
    if problems:
        raise InputError("\n".join(problems))
    return deployment


def on_one_machine(
    name: str, host: str, port: int, keys: Mapping[str, VerifyKey], file: Path = Path("deployment.toml")
) -> DeploymentFile:
    """A deployment whose servers have consecutive ports from ``port`` on; ``keys`` are `known`."""
    servers = {}
    for offset, server in enumerate(SERVER_NAMES):
        servers[server] = Endpoint(*parse_address(join_address(host, port + offset)), key=keys[server])
    users = {party: key for party, key in keys.items() if party not in (*SERVER_NAMES, OWNER_NAME)}
    return DeploymentFile(name, servers, keys[OWNER_NAME], users, file=file)


def _told_apart(deployment: DeploymentFile) -> Iterator[tuple[str, str]]:
    """One key for two parties would let one be taken for the other; and nobody listens where another does."""
    entries = deployment._entries()
    for part, cure in (
        ("key", "each party has a key of its own, made with siguard keygen"),
        ("address", "each server has an address of its own"),
    ):
        first: dict[_Value, str] = {}
        for dotted, value in entries.items():
            if dotted.endswith(f".{part}") and (other := first.setdefault(value, dotted)) != dotted:
                yield dotted, f"the same as {other}; {cure}"


def _values(section: BaseModel) -> Iterator[tuple[str, _Value]]:
    for key, value in section:
        if value is not None:
            yield key, value + 0.0 if isinstance(value, float) else value  # -0.0 means 0.0


def _digest(content: object, size: int) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=size, person=b"siguard deploy 1").digest()


def _toml(value: _Value) -> str:
    if isinstance(value, str):
        # JSON escapes what TOML does and the same way, given printable text and no escapes beyond ASCII.
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower()  # true, 60.0, 1e-05: all as TOML writes them
