"""The frame codec: round trips, a header of one width, and `FrameError` for everything that is not a frame."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siguard.errors import FrameError, ProtocolError
from siguard.prf import PROTOCOL_VERSION
from siguard.ring import RingArray
from siguard.transport import frame as codec
from siguard.transport.frame import (
    HEADER_BYTES,
    MAX_AXES,
    MAX_PAYLOAD_BYTES,
    SESSION_BYTES,
    STEP_BYTES,
    Frame,
    Kind,
    decode_frame,
    encode_frame,
    step_digest,
)

FEW = settings(deadline=None, max_examples=60, derandomize=True)
SESSION, STEP = bytes(range(100, 100 + SESSION_BYTES)), bytes(range(200, 200 + STEP_BYTES))
LARGEST = 2**32 - 1


def frame(payload: RingArray, depth: int = 7) -> Frame:
    return Frame(Kind.DATA, SESSION, STEP, depth, payload)


SAMPLES = {
    "matrix": frame(np.arange(6, dtype=np.uint64).reshape(2, 3)),
    "bytes": frame(np.arange(5, dtype=np.uint8), 300),
    "empty": frame(np.zeros((0,), np.uint16), 70_000),
    "wide and empty": frame(np.zeros((LARGEST, 0), np.uint32), LARGEST),
    "scalar": frame(np.array(9, np.uint64)),
}


def same(one: Frame, other: Frame) -> bool:
    meta = (one.kind, one.session, one.step, one.depth) == (other.kind, other.session, other.step, other.depth)
    payloads = (one.payload, other.payload)
    return meta and payloads[0].dtype == payloads[1].dtype and bool(np.array_equal(*payloads))


@FEW
@given(
    kind=st.sampled_from(Kind),
    session=st.binary(min_size=SESSION_BYTES, max_size=SESSION_BYTES),
    step=st.binary(min_size=STEP_BYTES, max_size=STEP_BYTES),
    depth=st.integers(0, LARGEST),
    shape=st.lists(st.integers(0, 4), max_size=MAX_AXES),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 2**32),
)
def test_a_frame_comes_back(
    kind: Kind, session: bytes, step: bytes, depth: int, shape: list[int], itemsize: int, seed: int
) -> None:
    size = itemsize * int(np.prod(shape, dtype=np.int64))
    payload = np.frombuffer(np.random.default_rng(seed).bytes(size), f"<u{itemsize}").reshape(shape)
    sent = Frame(kind, session, step, depth, payload)
    data = encode_frame(sent)
    assert len(data) == HEADER_BYTES + payload.nbytes
    received = decode_frame(data)
    assert same(sent, received), (sent, received)
    assert type(received.kind) is Kind
    assert not received.payload.flags.writeable


@pytest.mark.parametrize("depth", [0, 127, 128, 255, 256, 65_535, 65_536, LARGEST])
@pytest.mark.parametrize("shape", [(), (0,), (LARGEST, 0), (2**31 - 1, 2**31 - 1, 0), (1,) * MAX_AXES, (300, 300)])
def test_the_header_has_one_width(depth: int, shape: tuple[int, ...]) -> None:
    payload = np.zeros(shape, np.uint8)
    data = encode_frame(frame(payload, depth))
    assert len(data) - payload.nbytes == HEADER_BYTES
    assert same(decode_frame(data), frame(payload, depth))


def test_the_largest_header_fits() -> None:
    fields = (PROTOCOL_VERSION, max(Kind), SESSION, STEP, LARGEST, 8, (LARGEST,) * MAX_AXES, MAX_PAYLOAD_BYTES)
    assert len(msgpack.packb(fields)) <= HEADER_BYTES


def test_a_payload_that_is_not_contiguous_is_sent_in_order() -> None:
    payload = np.arange(24, dtype=np.uint32).reshape(4, 6)[::2, ::-1].T
    np.testing.assert_array_equal(decode_frame(encode_frame(frame(payload))).payload, payload)


def test_seven_axes_are_refused() -> None:
    with pytest.raises(FrameError, match="axes"):
        encode_frame(frame(np.zeros((1,) * (MAX_AXES + 1), np.uint8)))


def test_steps_are_told_apart_by_eight_bytes() -> None:
    digests = {step_digest(f"guard/inner[{index}]") for index in range(5000)}
    assert len(digests) == 5000
    assert {len(digest) for digest in digests} == {STEP_BYTES}


# --- what is not a frame ----------------------------------------------------------------------------------


def refused(data: bytes) -> str:
    with pytest.raises(FrameError) as caught:
        decode_frame(data)
    assert isinstance(caught.value, ProtocolError)
    return str(caught.value)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_frame_is_refused(name: str) -> None:
    data = encode_frame(SAMPLES[name])
    for length in range(len(data)):
        refused(data[:length])


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("surplus", [1, 8, 1000])
def test_a_frame_with_more_bytes_is_refused(name: str, surplus: int) -> None:
    assert "the header says" in refused(encode_frame(SAMPLES[name]) + bytes(surplus))


def altered_headers(name: str) -> list[bytes]:
    """Every header byte replaced by every other value."""
    data = encode_frame(SAMPLES[name])
    return [
        data[:at] + bytes([value]) + data[at + 1 :]
        for at in range(HEADER_BYTES)
        for value in range(256)
        if value != data[at]
    ]


@pytest.mark.parametrize("name", SAMPLES)
def test_an_altered_header_is_another_frame_or_refused(name: str) -> None:
    for data in altered_headers(name):
        try:
            decode_frame(data)
        except FrameError:
            continue
        except Exception as error:
            pytest.fail(f"{type(error).__name__} ({error}) for the header {data[:HEADER_BYTES].hex()}")


@pytest.mark.parametrize("name", SAMPLES)
def test_only_what_the_encoder_writes_is_a_frame(name: str) -> None:
    """One encoding per frame: a changed header never decodes to a frame that is written in another way."""
    accepted = []
    for data in altered_headers(name):
        try:
            decoded = decode_frame(data)
        except Exception:  # noqa: S112 - another test's business
            continue
        if encode_frame(decoded) != data:
            accepted.append(data[:HEADER_BYTES].hex())
    assert not accepted, f"{len(accepted)} headers, the first {accepted[0]}"


def header(payload: bytes = b"", **changes: Any) -> bytes:
    fields = {
        "version": PROTOCOL_VERSION,
        "kind": 2,
        "session": SESSION,
        "step": STEP,
        "depth": 0,
        "itemsize": 8,
        "shape": [1],
        "size": 8,
    }
    packed: bytes = msgpack.packb(list((fields | changes).values()))
    return packed.ljust(HEADER_BYTES, b"\0") + (payload or bytes(8))


def test_the_forged_header_is_right_when_nothing_is_changed() -> None:
    assert decode_frame(header()).payload.tolist() == [0]


@pytest.mark.parametrize("version", [0, 2, 255, 2**40, -1, "1", b"\x01", None, [1], True, 1.0], ids=repr)
def test_another_version_is_refused(version: Any) -> None:
    refused(header(version=version))


@pytest.mark.parametrize("at", [-1, -2, -9])
def test_padding_that_is_not_zero_is_refused(at: int) -> None:
    data = bytearray(header())
    data[HEADER_BYTES + at] = 1
    refused(bytes(data))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": 0},
        {"kind": 99},
        {"kind": None},
        {"kind": []},
        {"kind": True},
        {"kind": 2.0},
        {"session": SESSION[:-1]},
        {"session": "x" * SESSION_BYTES},
        {"step": STEP + b"x"},
        {"step": 7},
        {"depth": -1},
        {"depth": True},
        {"depth": 0.0},
        {"depth": None},
        {"itemsize": 3},
        {"itemsize": 0},
        {"itemsize": "8"},
        {"itemsize": []},
        {"itemsize": {}},
        {"shape": 1},
        {"shape": None},
        {"shape": [-1]},
        {"shape": [True]},
        {"shape": [1.0]},
        {"shape": ["1"]},
        {"shape": [1] * (MAX_AXES + 1)},
        {"shape": [2]},
        {"shape": [LARGEST, LARGEST]},
        {"size": 7},
        {"size": 16},
        {"size": -8},
        {"size": None},
        {"size": 2**64 - 1},
    ],
    ids=repr,
)
def test_a_field_of_the_wrong_type_or_range_is_refused(changes: dict[str, Any]) -> None:
    refused(header(**changes))


@pytest.mark.parametrize("shape", [[0, 2**64 - 1], [2**63, 0], [0, 2**62, 2**62], [2**32, 2**32, 0]], ids=repr)
def test_an_empty_payload_of_an_impossible_shape_is_refused(shape: list[int]) -> None:
    refused(header(shape=shape, size=0)[:HEADER_BYTES])


def test_a_payload_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_frame(frame(np.zeros(4, np.uint64)))
    monkeypatch.setattr(codec, "MAX_PAYLOAD_BYTES", 31)
    refused(data)


def test_a_payload_that_the_peer_would_refuse_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_PAYLOAD_BYTES", 31)
    with pytest.raises(FrameError):
        encode_frame(frame(np.zeros(4, np.uint64)))


@pytest.mark.parametrize(
    "value",
    [None, 1, "text", {}, {index: index for index in range(8)}, [], [1] * 7, [1] * 9, b"12345678"],
    ids=repr,
)
def test_other_msgpack_is_refused(value: Any) -> None:
    refused(msgpack.packb(value).ljust(HEADER_BYTES, b"\0") + bytes(8))


@FEW
@given(data=st.binary(max_size=3 * HEADER_BYTES))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refused(data)


@FEW
@given(seed=st.integers(0, 2**32), length=st.integers(HEADER_BYTES, HEADER_BYTES + 16))
def test_noise_after_a_plausible_start_is_refused(seed: int, length: int) -> None:
    # An array of eight with the right version, then anything.
    refused(b"\x98\x01" + np.random.default_rng(seed).bytes(length - 2))
