"""Fuzz targets that follow a conversation: TCP streams, handshakes, sealed records."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from itertools import count
from random import Random

import trio
from fuzz_bytes import pieces, spoiled
from nacl.signing import SigningKey

from siguard.transport.handshake import Agreed, HandshakeError, Identity, Steps, initiate, respond
from siguard.transport.link import LinkBrokenError, LinkClosedError
from siguard.transport.records import Mark, Opener, RecordError, Sealer
from siguard.transport.tcp import TcpLink
from siguard.transport.tcp_wire import CLOSED, ENDED, PREFIX_BYTES, prefix

#: Bytes of the largest message in the TCP target.
TCP_LIMIT = 1 << 18


def tcp(rng: Random) -> None:
    """Any bytes, in any pieces: the messages in front of the first wrong one arrive, then the right error."""
    stream = b""
    for _ in range(rng.randrange(6)):
        size = rng.choice(
            (0, 1, 3, rng.randrange(100), rng.randrange(3000), 65_532, 65_533, rng.randrange(TCP_LIMIT))
        )
        stream += prefix(size) + rng.randbytes(size)
    stream += rng.choice(
        (b"", b"", prefix(ENDED), prefix(CLOSED), prefix(TCP_LIMIT + 1), prefix(CLOSED - 1), b"GET /")
    )
    if rng.random() < 0.4:
        stream = spoiled(rng, stream)
    messages, broken = parse(stream)
    trio.run(_receive, pieces(rng, stream), messages, broken, rng.random() < 0.3)


def parse(stream: bytes) -> tuple[list[bytes], bool]:
    """What a stream says, by the format alone: its messages, and whether it ends without a word."""
    messages: list[bytes] = []
    while len(stream) >= PREFIX_BYTES:
        length = int.from_bytes(stream[:PREFIX_BYTES], "little")
        if length in (ENDED, CLOSED):
            return messages, False
        end = PREFIX_BYTES + length
        if length > TCP_LIMIT or end > len(stream):
            break
        messages.append(stream[PREFIX_BYTES:end])
        stream = stream[end:]
    return messages, True


async def _receive(sent: list[bytes], messages: list[bytes], broken: bool, impatient: bool) -> None:
    near, far = trio.socket.socketpair()
    async with trio.open_nursery() as nursery:
        link = TcpLink(near, "the other end", nursery, limit=TCP_LIMIT)

        async def write() -> None:
            try:
                for piece in sent:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[await far.send(rest) :]
                    await trio.lowlevel.checkpoint()
            except OSError:
                pass  # the link broke, and reads no more
            finally:
                far.close()

        nursery.start_soon(write)
        received: list[bytes] = []
        for attempt in count():
            try:
                # A receive that is cancelled, at once or while it waits, loses nothing.
                with trio.move_on_after((0, 1e-4)[attempt % 4 == 1] if impatient and attempt % 2 else 60):
                    received.append(bytes(await link.receive()))
            except LinkClosedError as error:
                ended = error
                break
        assert received == messages, f"{len(received)} messages of {len(messages)} arrived as they were sent"
        assert isinstance(ended, LinkBrokenError) == broken, f"ended with {ended}"
        with suppress(LinkClosedError):
            await link.receive()
            raise AssertionError("a message after the end")
        await link.aclose()
        nursery.cancel_scope.cancel()


_KEYS = {name: SigningKey(hashlib.sha256(name.encode()).digest()) for name in ("S0", "S1", "user")}
_KNOWN = {name: key.verify_key for name, key in _KEYS.items()}


def handshake(rng: Random) -> None:
    """One message is changed, replaced, swapped for an older one or cut: nobody whom it reaches agrees."""
    old: list[bytes] = []
    assert all(isinstance(one, Agreed) for one in _meet(rng, -1, lambda data: data, old))
    where = rng.randrange(4)
    changed = [False]

    def change(data: bytes) -> bytes:
        kind = rng.random()
        if kind < 0.6:
            new = spoiled(rng, data)
        elif kind < 0.8:
            new = rng.choice(old)
        elif kind < 0.9:
            new = data[: rng.randrange(len(data) + 1)] + rng.randbytes(rng.randrange(400))
        else:
            new = rng.choice((b"", data + bytes(1 << 20), b"\x16\x03\x01\x02\0", b"GET / HTTP/1.1\r\n\r\n"))
        changed[0] = new != data
        return new

    initiator, responder = _meet(rng, where, change, [])
    if not changed[0]:
        assert isinstance(initiator, Agreed)
    else:
        assert not isinstance(initiator, Agreed), f"the initiator agreed though message {where} was changed"
        assert where == 3 or not isinstance(responder, Agreed), f"the responder agreed though {where} was changed"
    if isinstance(initiator, Agreed) and isinstance(responder, Agreed):
        assert initiator.sending == responder.receiving
        assert initiator.receiving == responder.sending
        assert initiator.exporter == responder.exporter
        assert len({initiator.sending, initiator.receiving, initiator.exporter}) == 3


def _meet(rng: Random, where: int, change, seen: list[bytes]) -> list[Agreed | HandshakeError | None]:  # type: ignore[no-untyped-def]
    """Two ends talk, with somebody who changes message ``where``; how the initiator and the responder ended."""
    prologue = rng.randbytes(rng.randrange(3))
    ends: list[Steps] = [
        initiate(Identity("user", _KEYS["user"]), _KNOWN, rng.choice((None, "S1")), prologue, rng.randbytes),
        respond(Identity("S1", _KEYS["S1"]), _KNOWN, prologue, rng.randbytes),
    ]
    outcomes: list[Agreed | HandshakeError | None] = [None, None]
    assert next(ends[1]) == b""
    message = next(ends[0])
    for turn in range(8):
        seen.append(message)
        arriving = change(message) if turn == where else message
        who = (turn + 1) % 2
        if outcomes[who] is not None:
            break
        try:
            message = ends[who].send(arriving)
        except StopIteration as done:
            message, outcomes[who] = done.value
        except HandshakeError as error:
            outcomes[who] = error
            message = error.reply or b""
        if not message:
            break
    for end in ends:
        end.close()
    return outcomes


def records(rng: Random) -> None:
    """Sealed records open to what was sealed, and the first that is not the next one is refused."""
    secret, often = rng.randbytes(32), rng.randrange(1, 5)
    sealer = Sealer(secret, often)
    sent: list[tuple[bytes, bytes | Mark]] = []
    firm: list[int] = []
    for _ in range(rng.randrange(1, 10)):
        message = rng.randbytes(rng.randrange(40))
        record = sealer.seal(message)
        if rng.random() < 0.2:
            sealer.doubt()
            if rng.random() < 0.5:
                sent.append((record, message))
            sent.append((sealer.seal_skip(), Mark.SKIP))
            sealer.settle()
        else:
            firm.append(len(sent))
            sent.append((record, message))
    sent.append((sealer.seal_end(), Mark.END))
    opener = Opener(secret, often)
    assert [opener.open(record) for record, _ in sent] == [content for _, content in sent]
    wire = [record for record, _ in sent]
    where = _meddle(rng, wire, firm)
    opener = Opener(secret, often)
    for number, record in enumerate(wire):
        try:
            content = opener.open(record)
        except RecordError:
            assert where is not None, f"record {number} was refused, and nothing was changed"
            assert number == where, f"record {number} was refused, and {where} was changed"
            return
        assert content == sent[number][1]
    assert where is None, f"record {where} was changed and nothing was refused"


def _meddle(rng: Random, wire: list[bytes], firm: list[int]) -> int | None:
    """Change the records on their way; where the first one is that must be refused."""
    kind, where = rng.randrange(5), rng.randrange(len(wire))
    if kind == 0:
        record = spoiled(rng, wire[where])
        if record == wire[where]:
            return None
        wire[where] = record
        return where
    if kind == 1 and firm:  # one that must not be missing, and something comes after it
        where = rng.choice(firm)
        del wire[where]
        return where
    if kind == 2:  # replayed, perhaps much later
        later = rng.randrange(where, len(wire)) + 1
        wire.insert(later, wire[where])
        return later
    if kind == 3 and where in firm and where + 1 < len(wire):
        wire[where], wire[where + 1] = wire[where + 1], wire[where]
        return where
    wire.insert(where, rng.randbytes(rng.choice((0, 15, 16, 17, 32, 100))))
    return where
