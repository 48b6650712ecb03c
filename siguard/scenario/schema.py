"""What a scenario file may hold.  Every key states its meaning and what is allowed once, right here.

The same texts stand in error messages and, checked by a test, in docs/scenarios.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf

from siguard.deploy.schema import SERVER_NAMES
from siguard.deploy.schema import NetworkSection as ShapeSection
from siguard.errors import InputError
from siguard.guard.config import POLICIES
from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted
from siguard.sections import Section, setting
from siguard.transport.profiles import Direction, NetworkProfile


def _whole(default: int, low: int, high: int, meaning: str) -> Any:
    return setting(default, meaning, f"a whole number from {low} to {high}", ge=low, le=high)


_Width = Annotated[int, Field(ge=1, le=4096)]


class DataSection(Section):
    """``[data]``: where the rows come from."""

    kind: Literal["digits", "location30", "npz"] = setting(
        "digits",
        "the data set: scikit-learn's digits, Location30 from a file, or logits from an .npz file",
        "digits, location30 or npz",
    )
    path: str | None = setting(
        None,
        "the file or folder of location30 or npz; relative paths count from the folder of the scenario file",
        "a path; needed for npz, not for digits",
        min_length=1,
    )
    rows: int = _whole(
        150, 20, 359, "rows that train the target; as many are for h and for the evaluation (digits only)"
    )


class TargetSection(Section):
    """``[target]``: the dense ReLU network whose members are attacked; not for npz, which has its logits."""

    hidden: list[_Width] | None = setting(
        None,
        "widths of the hidden layers; 64, 64 for digits and 1024, 512, 256, 128 for location30 when left out",
        "a list of 1 to 5 whole numbers from 1 to 4096",
        min_length=1,
        max_length=5,
    )


class AttacksSection(Section):
    """``[attacks]``: what the attacker has who tries to tell members from non-members."""

    shadows: int = _whole(4, 1, 16, "shadow models of the attacker, trained like the target (digits only)")


class TransportSection(Section):
    """``[transport]``: where the three servers are."""

    kind: Literal["memory", "tcp"] = setting(
        "memory",
        "where the servers run: all parties in this process, or three processes of this machine over sealed TCP",
        "memory or tcp",
    )


#: Links that carry a query; the owner's and the test role's are as ``[network]`` says.
_WAYS = tuple(
    f"{sender}->{receiver}"
    for sender in (*SERVER_NAMES, "user")
    for receiver in (*SERVER_NAMES, "user")
    if sender != receiver
)


def _way(name: str) -> str:
    if name not in _WAYS:
        raise ValueError(name)
    return name


class NetworkSection(ShapeSection):
    """``[network]``: what messages meet on their way, and the clock by which seconds are counted."""

    links: dict[Annotated[str, AfterValidator(_way)], ShapeSection] = Field(
        default_factory=dict,
        description="single directions that differ, each with keys as above; what one leaves out is as in "
        "`[network]`, or as in its own profile if it names one (memory only)",
        json_schema_extra={
            "allowed": 'a table of directions, for example "S0->user" = { latency_ms = 60, mbit_per_s = 10 }',
            "names": 'SENDER->RECEIVER in quotes, two of S0, S1, S2 and user: "S0->user"',
        },
    )
    clock: Literal["wall", "virtual"] = setting(
        "wall",
        "seconds that really pass, or computed ones of parties side by side (memory only)",
        "wall or virtual",
    )
    costs: Literal["table", "measured"] = setting(
        "table",
        "what local work takes in virtual time: by a stored table, the same in every run, or as measured here",
        "table or measured; for the virtual clock only",
    )
    cores: int | None = setting(
        None,
        "how many parties compute at once, on one machine; each has a machine of its own when left out",
        "a whole number from 1 to 64; for the virtual clock only",
        ge=1,
        le=64,
    )

    def shape(self) -> ShapeSection:
        """What all links have in common, as a deployment file has it."""
        return ShapeSection(**self._shape())

    def as_profile(self) -> NetworkProfile | None:
        """The network with its single directions; None leaves links as they are."""
        everywhere = super().as_profile()
        if not self.links:
            return everywhere
        links = {}
        for way, own in self.links.items():
            base = {} if "profile" in own.model_fields_set else self._shape()
            profile = ShapeSection(**{**base, **own.model_dump(exclude_unset=True)}).as_profile()
            sender, _, receiver = way.partition("->")
            links[sender, receiver] = Direction() if profile is None else profile.default
        return NetworkProfile(
            f"{self.profile}, changed", Direction() if everywhere is None else everywhere.default, links
        )

    def _shape(self) -> dict[str, Any]:
        return self.model_dump(include=set(ShapeSection.model_fields))


class _Head(Section):
    """What experiments and proofs have in common."""

    name: str = setting("", "what the report calls the scenario; the file's name when left out", "a text")
    seed: int = _whole(1, 0, 2**31 - 1, "fixes the split, training, secret sharing and attacks; or a proof's draws")


class Sections(_Head):
    """An experiment's whole file but for ``[guard]``, whose keys depend on the policies (see load.py)."""

    samples: int | None = setting(
        None,
        "rows that are guarded and attacked, half of them members; all there are when left out",
        "an even number from 2 to 1000000",
        ge=2,
        le=1_000_000,
        multiple_of=2,
    )
    batch: int = _whole(100, 1, 10_000, "rows in one secure query")
    prepare: bool = setting(
        False,
        "let the dealing server send its part of each query before it is asked; seconds count from then on",
        "true or false",
    )
    data: DataSection = Field(default_factory=DataSection)
    target: TargetSection = Field(default_factory=TargetSection)
    attacks: AttacksSection = Field(default_factory=AttacksSection)
    transport: TransportSection = Field(default_factory=TransportSection)
    network: NetworkSection = Field(default_factory=NetworkSection)


def _policy(name: Any) -> Any:
    if name not in tuple(POLICIES):  # a tuple, because what was found may have no hash
        raise ValueError(name)
    return name


def _corrupted(text: Any) -> Corrupted:
    if not isinstance(text, str):
        raise ValueError(text)
    try:
        return Corrupted.parse(text)
    except InputError:  # its message is about an argument; that of a file names the key and what is allowed there
        raise ValueError(text) from None


def _each_once(items: Sequence[Any]) -> Sequence[Any]:
    if len(set(items)) != len(items):
        raise ValueError(items)
    return items


class ProveSection(Section):
    """``[prove]``: the claims of ``siguard prove``."""

    policies: Annotated[list[Annotated[str, BeforeValidator(_policy)]], AfterValidator(_each_once)] = setting(
        list(POLICIES),
        "the policies whose view is proved to be simulatable",
        f"a list of {', '.join(POLICIES)}, each at most once",
        min_length=1,
    )
    corrupt: Annotated[
        list[Annotated[InstanceOf[Corrupted], BeforeValidator(_corrupted)]], AfterValidator(_each_once)
    ] = setting(
        list(CORRUPTED_SETS),
        "the corrupted sets: one server and the user, one server, or the user",
        f"a list of {'; '.join(map(str, CORRUPTED_SETS))}, each at most once",
        min_length=1,
    )
    mode: Literal["quick", "full"] = setting("quick", "at most two minutes, or the whole campaign", "quick or full")
    html: bool = setting(
        False, "write the report as one HTML page too, report.html beside report.json", "true or false"
    )


class ProofSections(_Head):
    """A whole scenario file that describes a proof."""

    prove: ProveSection = Field(default_factory=ProveSection)


#: Keys that only some kinds of data have a use for; with another kind they are an error, never ignored.
ONLY_FOR = {
    "data.path": ("location30", "npz"),
    "data.rows": ("digits",),
    "target.hidden": ("digits", "location30"),
    "attacks.shadows": ("digits",),
}


def policy_keys(policy: str) -> tuple[str, ...]:
    """The keys that a policy has, in ``[guard]`` and in its own table: its parameters, and how it is computed."""
    own = POLICIES[policy]
    keys = tuple(name for name in ("outer", "inner", "learning_rate") if getattr(own, name) is not None)
    if own.max_outer == 1:  # one run is all there is: no choice, and no use for a shared ``outer``
        keys = tuple(name for name in keys if name != "outer")
    # c1, c2, c3 weigh the terms of a gradient: they belong to the policies that take steps along one.
    weights = ("c1", "c2", "c3") if own.inner is not None else ()
    return (*keys, *weights, "rounds", "max_bytes")
