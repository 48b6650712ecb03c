"""What deployment.toml may hold.  Every key states its meaning and what is allowed once, right here."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from nacl.signing import VerifyKey
from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf

from siguard.deploy.keys import PUBLIC_ALLOWED, parse_public
from siguard.errors import InputError
from siguard.explain import found_allowed
from siguard.sections import Section, setting
from siguard.transport.profiles import Direction, NetworkProfile, network_profile

SERVER_NAMES = ("S0", "S1", "S2")
OWNER_NAME = "owner"
USER_NAMES_ALLOWED = f"1 to 32 lowercase letters, digits, - and _; not {OWNER_NAME}"
_ADDRESS_ALLOWED = 'host:port, "10.0.0.1:7100", "s0.example.org:7100" or "[2001:db8::1]:7100"'
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def parse_address(text: object) -> tuple[str, int]:
    """Host and port of ``host:port``, the host in its one canonical spelling; raises `InputError`."""
    host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not colon:
        raise InputError(found_allowed(text, _ADDRESS_ALLOWED))
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65_535:
        raise InputError(found_allowed(text, f"a port from 1 to 65535 after the last colon; {_ADDRESS_ALLOWED}"))
    return _host(host, text), int(port)


def join_address(host: str, port: int) -> str:
    """The text of an address, brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(host: str, found: object) -> str:
    if host.startswith("[") and host.endswith("]"):
        kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address] = ipaddress.IPv6Address
        host = host[1:-1]
    elif ":" in host:
        raise InputError(found_allowed(found, "an IPv6 address in brackets, [2001:db8::1]:7100"))
    else:
        kind, labels = ipaddress.IPv4Address, host.lower().split(".")
        if not labels[-1].isdigit():
            if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
                raise InputError(found_allowed(found, _ADDRESS_ALLOWED))
            return host.lower()
    try:
        address = kind(host)
    except ValueError:
        raise InputError(found_allowed(found, _ADDRESS_ALLOWED)) from None
    # Neither means the same on every host: "all of my own addresses", and an interface by its local name.
    if address.is_unspecified or address.is_multicast or "%" in host:
        raise InputError(found_allowed(found, f"the address at which the other hosts reach it: {_ADDRESS_ALLOWED}"))
    return str(address)


def check_user_name(name: str) -> str:
    """The name, if a user may have it; else ValueError.  Lowercase, so that no user is called like a server."""
    if name == OWNER_NAME or not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
        raise ValueError(name)
    return name


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


def _seconds(default: float, meaning: str) -> Any:
    return setting(default, meaning, "seconds, from 0.001 to 86400", ge=0.001, le=86_400, allow_inf_nan=False)


def _public_key(whose: str) -> Any:
    return Field(description=f"the public key of {whose}", json_schema_extra={"allowed": PUBLIC_ALLOWED})


PublicKey = Annotated[InstanceOf[VerifyKey], BeforeValidator(parse_public)]


class ServerSection(Section):
    """``[servers.S0]``: where a server is reached, and the key that it must prove to have."""

    address: Annotated[tuple[str, int], BeforeValidator(parse_address)] = Field(
        description="where the other parties reach it", json_schema_extra={"allowed": _ADDRESS_ALLOWED}
    )
    key: PublicKey = _public_key("the server")


class ServersSection(Section):
    """``[servers]``: the three of them."""

    S0: ServerSection
    S1: ServerSection
    S2: ServerSection


class OwnerSection(Section):
    """``[owner]``: who shares the model and signs the guard configurations."""

    key: PublicKey = _public_key("the model owner")


class UserSection(Section):
    """``[users.NAME]``: who may ask."""

    key: PublicKey = _public_key("the user")


class LimitsSection(Section):
    """``[limits]``: after how long, and beyond what size, a server gives up."""

    deadline: float = _seconds(60.0, "seconds a server waits for a frame of a session")
    connect: float = _seconds(15.0, "seconds a party waits for a connection to another one")
    frame_bytes: int = setting(
        268_435_456,
        "bytes of the largest frame that is sent or received",
        "a whole number from 65536 to 2147483648",
        ge=65_536,
        le=2_147_483_648,
    )
    sessions: int = setting(
        256, "sessions that a server has open at once", "a whole number from 1 to 65536", ge=1, le=65_536
    )


def _shape(meaning: str, allowed: str, **constraints: Any) -> Any:
    return setting(None, f"{meaning}; the profile's when left out", allowed, allow_inf_nan=False, **constraints)


class NetworkSection(Section):
    """``[network]``: for experiments, every party shapes what it sends."""

    profile: Literal["lan", "wan", "none"] = setting(
        "none", "the network to imitate; none leaves the real one as it is", '"lan", "wan" or "none"'
    )
    latency_ms: float | None = _shape("milliseconds a message is on its way", "0 to 60000", ge=0, le=60_000)
    mbit_per_s: float | None = _shape(
        "millions of bits a second in one direction of a link", "0.001 to 1000000", ge=0.001, le=1_000_000
    )
    jitter_ms: float | None = _shape(
        "milliseconds by which the latency varies at most", "0 to 60000", ge=0, le=60_000
    )

    def as_profile(self) -> NetworkProfile | None:
        """What every party shapes what it sends with; None leaves the network as it is."""
        chosen = network_profile(self.profile)
        own = {}
        if self.latency_ms is not None:
            own["latency_seconds"] = self.latency_ms / 1e3
        if self.mbit_per_s is not None:
            own["bits_per_second"] = self.mbit_per_s * 1e6
        if self.jitter_ms is not None:
            own["jitter_seconds"] = self.jitter_ms / 1e3
        if not own:
            return chosen
        direction = replace(chosen.default if chosen is not None else Direction(), **own)
        return NetworkProfile(f"{self.profile}, changed", direction)


class ExperimentSection(Section):
    """``[experiment]``: what no deployment with real data may do."""

    plaintext: bool = setting(
        False, "send without sealing: every host on the way reads all shares", "true or false"
    )


def _some_users(users: dict[str, UserSection]) -> dict[str, UserSection]:
    if not users:
        raise ValueError("no users")
    return users


class Sections(Section):
    """The whole file."""

    name: Annotated[str, AfterValidator(_printable)] = Field(
        description="what reports and logs call the deployment",
        json_schema_extra={"allowed": "a text of 1 to 64 printable characters"},
        min_length=1,
        max_length=64,
    )
    servers: ServersSection = Field(json_schema_extra={"allowed": "tables S0, S1 and S2"})
    owner: OwnerSection = Field(json_schema_extra={"allowed": "a table with the owner's key"})
    users: Annotated[
        dict[Annotated[str, AfterValidator(check_user_name)], UserSection], AfterValidator(_some_users)
    ] = Field(
        json_schema_extra={
            "allowed": "a table [users.NAME] with a key for each user, at least one",
            "names": USER_NAMES_ALLOWED,
        }
    )
    limits: LimitsSection = Field(default_factory=LimitsSection)
    network: NetworkSection = Field(default_factory=NetworkSection)
    experiment: ExperimentSection = Field(default_factory=ExperimentSection)
