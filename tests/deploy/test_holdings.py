"""What a server keeps of the owner's: written whole, read back the same, refused when it is something else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgpack
import numpy as np
import pytest
from deploy_helpers import SHORT, tiny_defender, tiny_model
from nacl.signing import SigningKey

from siguard import GuardConfig, InputError, PartyFailedError, PolicyError, ProtocolError
from siguard.actors.encoding import encoded
from siguard.actors.holdings import Holdings
from siguard.actors.messages import Grant, Load, Offer, grant_bytes
from siguard.mpc.share import Share
from siguard.nn.model import DenseNetwork
from siguard.nn.shared import SharedModel
from siguard.ring import Z64

OWNER = SigningKey(bytes(32))
MODEL, DEFENDER = b"m" * 16, b"d" * 16


def keep(holdings: Holdings, network: DenseNetwork, name: bytes, label: str = "tiny", role: int = 0) -> Load:
    kind, arrays, public = encoded(network)
    load = Load(kind, name, label, [list(array.shape) for array in arrays], public)
    holdings.accept_network(load, [Share(role, Z64, array, array + np.uint64(1), 0) for array in arrays])
    return load


def sign(holdings: Holdings, config: GuardConfig = SHORT, model: bytes = MODEL) -> Grant:
    statement = grant_bytes(DEFENDER, model, config)
    grant = Grant(statement, OWNER.sign(statement).signature)
    holdings.accept_grant(grant)
    return grant


def filled(folder: Path | None, server: str = "S0") -> Holdings:
    holdings = Holdings(server, OWNER.verify_key, folder)
    keep(holdings, tiny_model(), MODEL)
    keep(holdings, tiny_defender(), DEFENDER)
    sign(holdings)
    return holdings


def flat(model: SharedModel) -> list[Share]:
    return [share for layer in model.layers for share in layer]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "S0"
    before = filled(folder)
    written = contents(folder)
    assert sorted(name.partition("-")[0] for name in written) == ["grant", "network", "network"]
    after = Holdings("S0", OWNER.verify_key, folder)
    assert contents(folder) == written
    assert after.offers() == before.offers()
    assert len(after) == len(before) == 2
    assert after.allows(DEFENDER, MODEL, SHORT)
    for one, other in zip(before.networks(DEFENDER, MODEL), after.networks(DEFENDER, MODEL), strict=True):
        assert one is not None
        assert other is not None
        assert one.shape == other.shape
    model, again = before.networks(DEFENDER, MODEL)[1], after.networks(DEFENDER, MODEL)[1]
    assert model is not None
    assert again is not None
    for share, same in zip(flat(model), flat(again), strict=True):
        assert (share.role, share.depth) == (same.role, same.depth)
        assert np.array_equal(share.first, same.first)
        assert np.array_equal(share.second, same.second)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    before = os.umask(0)
    try:
        filled(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_an_offer_needs_both_networks_and_a_signature() -> None:
    holdings = Holdings("S0", OWNER.verify_key)
    sign(holdings)
    assert holdings.offers() == []
    keep(holdings, tiny_model(), MODEL, "first")
    assert holdings.offers() == []
    keep(holdings, tiny_defender(), DEFENDER)
    [offer] = [Offer.from_values(values) for values in holdings.offers()]
    assert (offer.label, offer.widths, offer.defender) == ("first", [5, 7, 4], [4, 8, 6, 1])
    OWNER.verify_key.verify(offer.grant, offer.signature)
    assert not holdings.allows(DEFENDER, MODEL, GuardConfig(outer=2, inner=1))
    assert not holdings.allows(DEFENDER, b"x" * 16, SHORT)
    with pytest.raises(KeyError):
        holdings.networks(DEFENDER, b"x" * 16)


def test_a_grant_that_the_owner_did_not_sign(tmp_path: Path) -> None:
    holdings = filled(tmp_path)
    written = contents(tmp_path)
    statement = grant_bytes(DEFENDER, MODEL, GuardConfig("none"))
    forger = SigningKey(bytes([1]) * 32)
    for signature in (forger.sign(statement).signature, bytes(64), b"", OWNER.sign(b"other").signature):
        with pytest.raises(PolicyError, match="not signed by the model owner's key"):
            holdings.accept_grant(Grant(statement, signature))
    assert not holdings.allows(DEFENDER, MODEL, GuardConfig("none"))
    assert contents(tmp_path) == written


def test_a_network_of_an_unknown_kind(tmp_path: Path) -> None:
    holdings = Holdings("S0", OWNER.verify_key, tmp_path)
    with pytest.raises(ProtocolError, match="unknown network kind 'tree'"):
        holdings.accept_network(Load("tree", MODEL, "", [], []), [])
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("kind", ["grant", "network"])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "another shape", "a folder"])
def test_a_damaged_file_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    filled(tmp_path)
    path = next(path for path in tmp_path.iterdir() if path.name.startswith(kind))
    data = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "cut": data[: len(data) // 2],
                "noise": np.random.default_rng(0).bytes(len(data)),
                "another shape": msgpack.packb([1, {"a": 2}]),
            }[damage]
        )
    with pytest.raises(InputError) as caught:
        Holdings("S0", OWNER.verify_key, tmp_path)
    assert str(path) in caught.value.message
    assert "remove the file, and let the owner share the network again" in caught.value.message
    assert caught.value.party == "S0"


def test_a_grant_of_another_owner_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(InputError, match="grant-"):
        Holdings("S0", SigningKey.generate().verify_key, tmp_path)


def test_what_is_not_its_own_stays_as_it_is(tmp_path: Path) -> None:
    before = filled(tmp_path)
    (tmp_path / ".network-00.draft").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    after = Holdings("S0", OWNER.verify_key, tmp_path)
    assert after.offers() == before.offers()
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_disk_that_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is told, and the guard whose grant was not kept is offered to nobody."""
    holdings = Holdings("S0", OWNER.verify_key, tmp_path)
    keep(holdings, tiny_model(), MODEL)
    keep(holdings, tiny_defender(), DEFENDER)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PartyFailedError, match=r"S0 cannot keep what the owner sent: .*No space left") as caught:
        sign(holdings)
    assert caught.value.party == "S0"
    assert holdings.offers() == []
    assert not any(name.startswith("grant") for name in contents(tmp_path))


def test_reading_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server starts from a folder on a full disk, or one that it may only read."""
    before = filled(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert Holdings("S0", OWNER.verify_key, tmp_path).offers() == before.offers()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="state"):
        Holdings("S0", OWNER.verify_key, file)
    with pytest.raises(InputError, match="state"):
        Holdings("S0", OWNER.verify_key, file / "S0")


def test_a_folder_of_another_server_is_refused(tmp_path: Path) -> None:
    """Its parts, in another role, would give other confidences without a word."""
    filled(tmp_path, "S1")
    with pytest.raises(InputError, match="S1"):
        Holdings("S0", OWNER.verify_key, tmp_path)
