"""deployment.toml: what is accepted, what a wrong one is told, and when two mean the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.signing import SigningKey, VerifyKey

from siguard.deploy.file import DeploymentFile, Endpoint, load_deployment, on_one_machine
from siguard.deploy.keys import default_key_file, public_text, write_key
from siguard.deploy.schema import LimitsSection, NetworkSection, parse_address
from siguard.errors import InputError
from siguard.transport.profiles import LAN, WAN, Direction

NAMES = ("S0", "S1", "S2", "owner", "alice", "bob-2")
SECRETS = {name: SigningKey(bytes([index]) * 32) for index, name in enumerate(NAMES, 1)}
KEYS = {name: key.verify_key for name, key in SECRETS.items()}
TEXT = {name: public_text(key) for name, key in KEYS.items()}

WHOLE = f"""
name = "clinic"
[servers.S0]
address = "10.0.0.1:7100"
key = "{TEXT["S0"]}"
[servers.S1]
address = "s1.example.org:7100"
key = "{TEXT["S1"]}"
[servers.S2]
address = "[2001:db8::2]:7100"
key = "{TEXT["S2"]}"
[owner]
key = "{TEXT["owner"]}"
[users.alice]
key = "{TEXT["alice"]}"
[users.bob-2]
key = "{TEXT["bob-2"]}"
"""
#: The same content: other order, spelling, quotes, comments, defaults written out.
SAME = f"""
# A comment.
name = "cl\\u0069nic"
experiment = {{ plaintext = false }}
users = {{ bob-2 = {{ key = "{TEXT["bob-2"]}" }}, alice.key = "{TEXT["alice"]}" }}
servers.S2 = {{ key = "{TEXT["S2"]}", address = "[2001:0DB8:0::0002]:7100" }}
servers.S1 = {{ key = "{TEXT["S1"]}", address = "S1.Example.ORG:7100" }}
servers.S0 = {{ key = "{TEXT["S0"]}", address = "10.0.0.1:7100" }}
[limits]
deadline = 60  # a whole number of seconds
frame_bytes = 268_435_456
[owner]
key = '{TEXT["owner"]}'
"""


def load(folder: Path, text: str) -> DeploymentFile:
    file = folder / "deployment.toml"
    file.write_text(text, encoding="utf-8")
    return load_deployment(file)


def refusal(folder: Path, text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(folder, text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder / 'deployment.toml'}: ") for line in lines)
    return lines


def test_what_a_file_means(tmp_path: Path) -> None:
    deployment = load(tmp_path, WHOLE)
    assert deployment.name == "clinic"
    assert deployment.servers == {
        "S0": Endpoint("10.0.0.1", 7100, KEYS["S0"]),
        "S1": Endpoint("s1.example.org", 7100, KEYS["S1"]),
        "S2": Endpoint("2001:db8::2", 7100, KEYS["S2"]),
    }
    assert deployment.servers["S2"].address == "[2001:db8::2]:7100"
    assert deployment.known() == KEYS
    assert deployment.limits == LimitsSection(deadline=60, connect=15, frame_bytes=268_435_456, sessions=256)
    assert deployment.network.as_profile() is None
    assert deployment.plaintext is False
    assert deployment.warnings() == []
    with pytest.raises(TypeError):
        deployment.servers["S3"] = deployment.servers["S0"]  # type: ignore[index]


def test_equal_meaning_is_an_equal_digest(tmp_path: Path) -> None:
    one, other = load(tmp_path, WHOLE), load(tmp_path, SAME)
    assert other == one
    assert other.digests() == one.digests()
    # Fixed, because hosts with different versions of this program compare it too.
    assert one.digests()["name"] == "a4f6adff7a0963dd"


@pytest.mark.parametrize(
    ("old", "new", "entry"),
    [
        ('"clinic"', '"clinik"', "name"),
        ("10.0.0.1:7100", "10.0.0.1:7101", "servers.S0.address"),
        ("2001:db8::2", "2001:db8::3", "servers.S2.address"),
        (TEXT["S1"], public_text(SigningKey(bytes(32)).verify_key), "servers.S1.key"),
        (TEXT["owner"], public_text(SigningKey(bytes(32)).verify_key), "owner.key"),
        (TEXT["bob-2"], public_text(SigningKey(bytes(32)).verify_key), "users.bob-2.key"),
        ("[owner]", "[limits]\ndeadline = 59.5\n[owner]", "limits.deadline"),
        ("[owner]", "[limits]\nsessions = 3\n[owner]", "limits.sessions"),
        ("[owner]", '[network]\nprofile = "lan"\n[owner]', "network.profile"),
        ("[owner]", "[network]\nlatency_ms = 0\n[owner]", "network.latency_ms"),
        ("[owner]", "[experiment]\nplaintext = true\n[owner]", "experiment.plaintext"),
        ("[users.bob-2]", "[users.bob]", "users.bob.key"),
    ],
)
def test_a_difference_is_named_by_its_entry_and_by_no_other(tmp_path: Path, old: str, new: str, entry: str) -> None:
    one, other = load(tmp_path, WHOLE), load(tmp_path, WHOLE.replace(old, new, 1))
    assert one.digests() != other.digests()
    mine, theirs = one.digests(), other.digests()
    differing = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
    assert differing - {"users.bob-2.key"} == {entry} - {"users.bob-2.key"}
    assert entry in differing
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in theirs.values())


def test_equal_values_in_different_entries_have_different_digests(tmp_path: Path) -> None:
    digests = load(tmp_path, WHOLE + "[network]\nlatency_ms = 3\njitter_ms = 3").digests()
    assert digests["network.latency_ms"] != digests["network.jitter_ms"]


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('name = "clinic"', "", ["name: missing", "1 to 64 printable characters"]),
        ('name = "clinic"', 'name = ""', ["name: found", "1 to 64"]),
        ('name = "clinic"', 'name = "a\\nb"', ["name: found", "printable"]),
        ('name = "clinic"', 'name = "c"\nserver = 3', ["server: unknown key", "did you mean 'servers'?"]),
        ('name = "clinic"', 'name = "c"\n"a\\nb" = 3', ['"a\\nb": unknown key']),
        ("[servers.S1]", "[servers.S3]", ["servers.S3: unknown key", "S0, S1, S2"]),
        ('address = "10.0.0.1:7100"', "", ["servers.S0.address: missing", "host:port"]),
        ('address = "10.0.0.1:7100"', "adress = 3", ["servers.S0.adress: unknown key", "'address'"]),
        ('"10.0.0.1:7100"', "7100", ["servers.S0.address: found 7100", "host:port"]),
        ("10.0.0.1:7100", "10.0.0.1", ['servers.S0.address: found "10.0.0.1"', "host:port"]),
        ("10.0.0.1:7100", "10.0.0.1:0", ["a port from 1 to 65535"]),
        ("10.0.0.1:7100", "10.0.0.1:65536", ["a port from 1 to 65535"]),
        ("10.0.0.1:7100", "10.0.0.1:+7", ["a port from 1 to 65535"]),
        ("10.0.0.1:7100", ":7100", ['servers.S0.address: found ":7100"']),
        ("10.0.0.1:7100", "10.0.0.256:7100", ["servers.S0.address", "host:port"]),
        ("10.0.0.1:7100", "10.0.01:7100", ["servers.S0.address", "host:port"]),
        ("10.0.0.1:7100", "<HOST>:7100", ['servers.S0.address: found "<HOST>:7100"']),
        ("10.0.0.1:7100", "-a.org:7100", ["servers.S0.address", "host:port"]),
        ("10.0.0.1:7100", "::1:7100", ['found "::1:7100"', "an IPv6 address in brackets, [2001:db8::1]:7100"]),
        ("10.0.0.1:7100", "[10.0.0.1]:7100", ["servers.S0.address", "host:port"]),
        ("10.0.0.1:7100", "0.0.0.0:7100", ["the address at which the other hosts reach it"]),
        ("10.0.0.1:7100", "[::]:7100", ["the address at which the other hosts reach it"]),
        ("10.0.0.1:7100", "[fe80::1%eth0]:7100", ["the address at which the other hosts reach it"]),
        ("[owner]", "[owners]", ["owners: unknown key; did you mean 'owner'?"]),
        ("[users.alice]", "[users.Alice]", ['users.Alice: found "Alice"', "lowercase letters, digits, - and _"]),
        ("[users.alice]", "[users.S0]", ['users.S0: found "S0"', "lowercase letters"]),
        ("[users.alice]", "[users.owner]", ['users.owner: found "owner"', "not owner"]),
        ("[users.alice]", '[users."a b"]', ['users."a b": found']),
        ("[users.alice]", f"[users.{'a' * 33}]", ["1 to 32"]),
        ("[users.alice]", "[users.alice]\nkeys = 3", ["users.alice.keys: unknown key", "'key'"]),
        ("[owner]", "[limits]\ndeadline = 0\n[owner]", ["limits.deadline: found 0", "from 0.001 to 86400"]),
        ("[owner]", "[limits]\ndeadline = nan\n[owner]", ["limits.deadline: found nan"]),
        ("[owner]", "[limits]\nconnect = true\n[owner]", ["limits.connect: found true", "seconds"]),
        ("[owner]", "[limits]\nframe_bytes = 1e6\n[owner]", ["limits.frame_bytes: found 1000000.0", "whole"]),
        ("[owner]", "[limits]\nframe_bytes = 9\n[owner]", ["limits.frame_bytes: found 9", "65536"]),
        ("[owner]", "[limits]\nsessions = 0\n[owner]", ["limits.sessions: found 0", "from 1 to 65536"]),
        ("[owner]", '[network]\nprofile = "wlan"\n[owner]', ["network.profile", '"lan", "wan" or "none"']),
        ("[owner]", "[network]\nlatency_ms = -1\n[owner]", ["network.latency_ms: found -1", "0 to 60000"]),
        ("[owner]", "[network]\nmbit_per_s = inf\n[owner]", ["network.mbit_per_s: found inf"]),
        ("[owner]", "[experiment]\nplaintext = 1\n[owner]", ["experiment.plaintext: found 1", "true or false"]),
        ("[owner]", "[[owner]]", ["owner: found", "a table"]),
        ("[owner]", "[owner", ["not valid TOML"]),
        ("s1.example.org:7100", "10.0.0.1:7100", ["servers.S1.address: the same as servers.S0.address"]),
        (TEXT["S1"], TEXT["S0"], ["servers.S1.key: the same as servers.S0.key", "a key of its own"]),
        (TEXT["owner"], TEXT["S2"], ["owner.key: the same as servers.S2.key"]),
        (TEXT["bob-2"], TEXT["alice"], ["users.bob-2.key: the same as users.alice.key"]),
    ],
)
def test_a_wrong_file_is_told_key_found_and_allowed(tmp_path: Path, old: str, new: str, parts: list[str]) -> None:
    assert old in WHOLE
    message = "\n".join(refusal(tmp_path, WHOLE.replace(old, new, 1)))
    for part in parts:
        assert part in message


def test_there_is_at_least_one_user(tmp_path: Path) -> None:
    for users in ("", "[users]"):
        (line,) = refusal(tmp_path, WHOLE[: WHOLE.index("[users.alice]")] + users)
        assert "users: " in line
        assert "at least one" in line


@pytest.mark.parametrize(
    "key",
    [
        "",
        "ed25519:",
        TEXT["S0"].removeprefix("ed25519:"),
        TEXT["S0"].replace("ed25519", "x25519"),
        TEXT["S0"][:-1],
        TEXT["S0"] + "=",
        TEXT["S0"] + "\\n",
        "ed25519:" + "A" * 42 + "B=",  # bits after the last byte
        "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",  # the neutral element: every signature fits
        "ed25519:AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",  # not on the curve
    ],
)
def test_what_is_no_public_key_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    (line,) = refusal(tmp_path, WHOLE.replace(TEXT["S0"], key))
    assert "servers.S0.key: " in line
    assert "siguard keygen" in line
    assert len(key) < 12 or key not in line


def test_a_secret_key_in_the_public_file_is_not_shown(tmp_path: Path) -> None:
    write_key(tmp_path / "S0.key", "S0", SECRETS["S0"])
    secret = (tmp_path / "S0.key").read_text(encoding="ascii").splitlines()[-1]
    (line,) = refusal(tmp_path, WHOLE.replace(TEXT["S0"], secret))
    assert "this is a secret key" in line
    assert "make another one" in line
    assert secret.split()[-1][:8] not in line


def test_every_problem_has_its_own_line(tmp_path: Path) -> None:
    text = WHOLE.replace("10.0.0.1:7100", "x").replace(TEXT["S1"], "y") + "[limits]\nsessions = 0\nconnect = 0"
    assert len(refusal(tmp_path, text)) == 4
    same = WHOLE.replace(TEXT["S1"], TEXT["S0"]).replace("s1.example.org", "10.0.0.1")
    assert len(refusal(tmp_path, same)) == 2


def test_a_missing_file_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml: no such file; expected a deployment in TOML.*keygen"):
        load_deployment(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("section", "direction"),
    [
        ('profile = "lan"', LAN.default),
        ('profile = "wan"', WAN.default),
        ('profile = "wan"\nlatency_ms = 10\njitter_ms = 2', Direction(0.01, 100e6, 0.002)),
        ("latency_ms = 5.5\nmbit_per_s = 20", Direction(0.0055, 20e6, 0.0)),
    ],
)
def test_a_shaped_network_is_a_profile_and_is_warned_of(tmp_path: Path, section: str, direction: Direction) -> None:
    deployment = load(tmp_path, f"{WHOLE}[network]\n{section}")
    profile = deployment.network.as_profile()
    assert profile is not None
    assert profile.direction("S0", "S1") == profile.direction("S2", "alice") == direction
    (warning,) = deployment.warnings()
    assert "[network]" in warning


def test_plaintext_is_shouted(tmp_path: Path) -> None:
    deployment = load(tmp_path, f"{WHOLE}[experiment]\nplaintext = true")
    (warning,) = deployment.warnings()
    assert "NOTHING IS ENCRYPTED" in warning
    assert str(deployment.file) in warning


public_keys = st.binary(min_size=32, max_size=32).map(lambda seed: SigningKey(seed).verify_key)
hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,5}){0,2}", fullmatch=True),
)


def reachable(host: str) -> bool:
    try:
        parse_address(f"{host}:1")
    except InputError:
        return False
    return True


user_names = st.from_regex(r"[a-z0-9_-]{1,32}", fullmatch=True).filter(lambda name: name != "owner")
names = st.text(st.characters(categories=["L", "N", "P", "S"], include_characters=" "), min_size=1, max_size=64)
milliseconds = st.none() | st.floats(0, 60_000) | st.just(-0.0)
networks = st.builds(
    NetworkSection,
    profile=st.sampled_from(["lan", "wan", "none"]),
    latency_ms=milliseconds,
    mbit_per_s=st.none() | st.floats(0.001, 1_000_000),
    jitter_ms=milliseconds,
)
limits = st.builds(LimitsSection, deadline=st.floats(0.001, 86_400), sessions=st.integers(1, 65_536))
addresses = st.tuples(hosts.filter(reachable), st.integers(1, 65_535)).map(lambda pair: f"{pair[0]}:{pair[1]}")


@st.composite
def deployments(draw: st.DrawFn) -> DeploymentFile:
    users = draw(st.lists(user_names, min_size=1, max_size=4, unique=True))
    keys = draw(st.lists(public_keys, min_size=4 + len(users), max_size=4 + len(users), unique_by=bytes))
    places = draw(st.lists(addresses.map(parse_address), min_size=3, max_size=3, unique=True))
    ends = [Endpoint(*place, key=key) for place, key in zip(places, keys, strict=False)]
    return DeploymentFile(
        name=draw(names),
        servers=dict(zip(("S0", "S1", "S2"), ends, strict=True)),
        owner_key=keys[3],
        users=dict(zip(users, keys[4:], strict=True)),
        limits=draw(limits),
        network=draw(networks),
        plaintext=draw(st.booleans()),
    )


@given(deployment=deployments())
@example(
    deployment=dataclasses.replace(
        on_one_machine('quotes " \\ and \U0001f600', "::1", 7100, KEYS), network=NetworkSection(latency_ms=1e-5)
    )
)
def test_what_is_written_is_read_back(deployment: DeploymentFile, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("deployment") / "d.toml"
    deployment.write(file)
    again = load_deployment(file)
    assert again == deployment
    assert again.digests() == deployment.digests()
    assert again.digests() == deployment.digests()
    assert again.to_toml() == deployment.to_toml()


def test_writing_does_not_replace_a_file_by_accident(tmp_path: Path) -> None:
    deployment = on_one_machine("d", "127.0.0.1", 7100, KEYS)
    file = tmp_path / "new" / "deployment.toml"
    deployment.write(file)
    with pytest.raises(InputError, match=r"deployment\.toml: exists; .*--force"):
        dataclasses.replace(deployment, name="other").write(file)
    assert load_deployment(file) == deployment
    dataclasses.replace(deployment, name="other").write(file, force=True)
    assert load_deployment(file).name == "other"
    with pytest.raises(InputError, match="cannot be written"):
        deployment.write(file / "below")
    assert [path.name for path in file.parent.iterdir()] == ["deployment.toml"]


def test_the_identity_of_a_party_comes_from_its_place_beside_the_file(tmp_path: Path) -> None:
    deployment = load(tmp_path, WHOLE)
    file = default_key_file(deployment.file, "S1")
    assert file == tmp_path / "keys" / "S1.key"
    write_key(file, "S1", SECRETS["S1"])
    identity = deployment.identity("S1")
    assert (identity.name, identity.signing_key) == ("S1", SECRETS["S1"])
    write_key(tmp_path / "elsewhere", "alice", SECRETS["alice"])
    assert deployment.identity("alice", tmp_path / "elsewhere").name == "alice"
    with pytest.raises(InputError, match=r"deployment\.toml: found 'alicia': unknown party; did you mean 'alice'"):
        deployment.identity("alicia")
    with pytest.raises(InputError, match=r"S0\.key: no such key file"):
        deployment.identity("S0")
    write_key(file, "S1", SECRETS["S2"], force=True)
    with pytest.raises(InputError, match=r"does not belong to the key that .*deployment\.toml pins for S1"):
        deployment.identity("S1")


def test_a_result_is_frozen_and_shows_no_more_than_public_keys(tmp_path: Path) -> None:
    deployment = load(tmp_path, WHOLE)
    assert isinstance(deployment.users, MappingProxyType)
    assert all(isinstance(key, VerifyKey) for key in deployment.known().values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        deployment.name = "other"  # type: ignore[misc]
