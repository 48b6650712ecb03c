"""Logs of a party: JSON lines without a secret in them, and nothing that happens to a log stops a party."""

from __future__ import annotations

import base64
import enum
import io
import json
import os
import subprocess
import sys
import threading
from collections import deque, namedtuple
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from siguard.actors.cluster import open_cluster
from siguard.deploy.logs import LEVELS, LogLines, configure_logs
from siguard.deploy.redact import printable
from siguard.errors import InputError, PartyFailedError, ProtocolError
from siguard.guard.config import GuardConfig
from siguard.mpc.share import Additive, Opened, Share
from siguard.nn.model import Defender
from siguard.ring import ring
from siguard.transport.link import Data, Link
from siguard.transport.secure import Identity

Z64 = ring(64)
#: Each number has digits that stand nowhere else.
NUMBERS = np.array([987654321012345678, 424242424242424242], np.uint64)
SMALL = np.array([54321, 61234, 47474], np.uint16)
LOGITS = np.array([0.7182818284, -3.1415926535, 1.6180339887])
SEED = bytes.fromhex("c0ffee" * 10 + "c0de")
KEY = SigningKey(SEED)


class Colour(enum.IntEnum):
    GREEN = 2


@dataclass
class Holder:
    logits: Any
    key: Any


class Rude:
    """Whatever is done to look at it fails."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


Pair = namedtuple("Pair", "first second")
PLANTED: dict[str, Any] = {
    "share": Share(0, Z64, NUMBERS[:1], NUMBERS[1:], 1),
    "additive": Additive(0, Z64, NUMBERS, 1),
    "opened": Opened(0, Z64, NUMBERS, 1),
    "array of shares": NUMBERS,
    "small ring": SMALL,
    "logits": LOGITS,
    "one element": NUMBERS[0],
    "one logit": LOGITS[0],
    "python element": int(NUMBERS[0]),
    "negative element": -int(NUMBERS[0]),
    "list of elements": NUMBERS.tolist(),
    "list of logits": LOGITS.tolist(),
    "tuple of logits": tuple(LOGITS.tolist()),
    "set of logits": set(LOGITS.tolist()),
    "many small elements": SMALL.tolist() * 3,
    "decimal": Decimal("0.7182818284"),
    "fraction": Fraction(LOGITS[0]),
    "complex": complex(LOGITS[0]),
    "seed": SEED,
    "seed in a bytearray": bytearray(SEED),
    "view of a seed": memoryview(SEED),
    "short key": SEED[:16],
    "signing key": KEY,
    "agreement key": PrivateKey(SEED),
    "identity": Identity("S0", KEY),
    "hex text": SEED.hex(),
    "base64 text": f"the key {base64.b64encode(SEED).decode()} of S0",
    "urlsafe text": base64.urlsafe_b64encode(SEED).decode(),
    "key file": f"siguard-secret-key-1 S0 {base64.b64encode(SEED).decode()}",
    "dataclass": Holder(LOGITS, KEY),
    "named tuple": Pair(SEED, LOGITS),
    "iterator": iter(LOGITS.tolist()),
    "closure": lambda: SEED,
}
NESTED: dict[str, Any] = {
    "in a dict": lambda x: {"x": x},
    "in a list": lambda x: [x, "beside"],
    "in a dict in a tuple in a list": lambda x: [({"x": x},)],
    "deep": lambda x: {"a": {"b": {"c": {"d": {"e": {"f": [x]}}}}}},
    "in a queue": lambda x: deque([x]),
    "in an exception": lambda x: ValueError("bad", x),
    "in our own error's cause": lambda x: caused(x),
    "in a group": lambda x: ExceptionGroup("several", [ValueError(x), KeyError(x)]),
}


def caused(value: object) -> ProtocolError:
    error = ProtocolError("it went wrong", party="S1")
    error.__cause__ = ValueError(value)
    return error


def forms() -> set[str]:
    """What a line would hold if a planted value had come through, in any of the usual spellings."""
    found = {SEED.hex(), base64.b64encode(SEED).decode(), base64.urlsafe_b64encode(SEED).decode()}
    found |= {
        SEED[:16].hex(),
        repr(SEED)[2:20],
        "c0ffee",
        "C0FFEE",
        str(list(SEED))[1:20],
        str(int.from_bytes(SEED)),
    }
    for number in (*NUMBERS.tolist(), *SMALL.tolist()):
        found |= {str(number), f"{number:x}", base64.b64encode(number.to_bytes(8, "little")).decode()[:10]}
    for logit in LOGITS.tolist():
        found |= {str(logit)[:8], np.float64(logit).tobytes().hex(), logit.hex()[:12]}
    return found


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    lines = configure_logs(tmp_path / "log", "debug")
    yield tmp_path / "log"
    lines.close()


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


def log() -> Any:
    return structlog.get_logger("siguard").bind(party="S0")


def test_a_line_is_json_with_time_level_event_and_fields(file: Path) -> None:
    log().info("link closed", peer="S1", step="guard/0", seconds=0.25, shape=(2, 3), known=True, reason=None)
    (line,) = read(file)
    assert list(line)[:4] == ["timestamp", "level", "event", "party"]
    when = datetime.fromisoformat(line.pop("timestamp"))
    assert when.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=1)
    assert line == {
        "level": "info",
        "event": "link closed",
        "party": "S0",
        "peer": "S1",
        "step": "guard/0",
        "seconds": 0.25,
        "shape": [2, 3],
        "known": True,
        "reason": None,
    }


def test_what_is_public_stays_readable(file: Path) -> None:
    session = SEED[:16].hex().replace("c0ffee", "0123ab")  # as long as a session id
    log().info("a\nb \u2028 é", session=session, file=Path("/var/log/x"), kind=Colour.GREEN, ratio=float("nan"))
    assert len(file.read_bytes().splitlines()) == 1
    (line,) = read(file)
    assert line["event"] == "a\nb \u2028 é"
    assert (line["session"], line["file"], line["kind"]) == (session, "/var/log/x", "GREEN")
    assert line["ratio"] == "nan"


@pytest.mark.parametrize("level", LEVELS)
def test_levels_below_the_chosen_one_are_not_written(tmp_path: Path, level: str) -> None:
    lines = configure_logs(tmp_path / "log", level)
    for name in LEVELS:
        getattr(log(), name)("event")
    lines.close()
    assert [line["level"] for line in read(tmp_path / "log")] == list(LEVELS[LEVELS.index(level) :])


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="log level: found 'loud'; allowed: debug, info"):
        configure_logs(tmp_path / "log", "loud")
    with pytest.raises(InputError, match=r"absent/log: cannot be written \(No such file or directory\)"):
        configure_logs(tmp_path / "absent" / "log")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: cannot be written"):  # and does not wait for a reader
        configure_logs(tmp_path / "pipe")
    with pytest.raises(InputError, match="cannot be written"):
        configure_logs(io.StringIO())
    assert not structlog.is_configured()


# No secret -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_secret_does_not_come_through(file: Path, name: str) -> None:
    secret = PLANTED[name]
    log().info("plain", value=secret)
    log().bind(value=secret).warning("bound")
    log().info("text %s", secret)
    log().log(30, "text %s", secret)
    log().info(secret)
    for nest in NESTED.values():
        log().error("nested", value=nest(secret))
    with suppress(TypeError):  # shares and the like cannot be keys
        log().info("key", value={secret: 1})
    for raised in (ValueError(secret), caused(secret), ExceptionGroup("several", [ValueError(secret)])):
        try:
            local = secret  # noqa: F841 - a traceback with locals would show it
            raise raised
        except Exception as error:
            log().exception("failed")
            log().error("failed", exc_info=True)
            log().error("failed", exc_info=error)
            log().error("failed", exc_info=(type(error), error, error.__traceback__))
            log().error("failed", error=error)
    shown = file.read_text(encoding="ascii")
    assert len(read(file)) >= 5 + len(NESTED) + 15
    assert "log_lines_dropped" not in shown
    for form in forms():
        assert form not in shown, f"{name} is shown as {form}"


def test_the_forms_would_be_found() -> None:
    """The search of the test above finds each secret in what an ordinary logger writes."""
    for name, secret in PLANTED.items():
        if name in ("share", "additive", "opened", "signing key", "agreement key", "identity", "closure"):
            continue  # those already show nothing of themselves
        if name in ("view of a seed", "iterator", "fraction"):
            continue  # shown by their address, or as a ratio
        text = repr(secret) if not isinstance(secret, str) else secret
        assert any(form in text for form in forms()), f"{name}: {text}"


def test_what_replaces_a_secret_is_the_name_of_its_type(file: Path) -> None:
    log().info("event", share=PLANTED["share"], key=KEY, rows=LOGITS, data=SEED, element=int(NUMBERS[0]))
    (line,) = read(file)
    assert line["share"] == "<Share>"
    assert line["key"] == "<SigningKey>"
    assert line["rows"] == "<ndarray>"
    assert line["data"] == "<bytes>"
    assert line["element"] == "<int>"


def test_an_exception_is_its_type_and_place_and_only_our_own_have_words(file: Path) -> None:
    try:
        try:
            raise ZeroDivisionError("the logit 0.5")
        except ZeroDivisionError as error:
            raise PartyFailedError("S0 failed", party="S0", session="ab", step="guard/1") from error
    except PartyFailedError:
        log().exception("session failed")
    (line,) = read(file)
    told = line["exception"]
    cause = told.pop("cause")
    assert told.pop("at").startswith("test_logs.py:")
    assert told == {
        "type": "PartyFailedError",
        "message": "S0 failed",
        "party": "S0",
        "session": "ab",
        "step": "guard/1",
    }
    assert cause["type"] == "ZeroDivisionError"
    assert set(cause) == {"type", "at"}


def test_loops_and_rude_objects_are_shown_by_their_type(file: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    round_about = ValueError()
    round_about.__cause__ = KeyError()
    round_about.__cause__.__cause__ = round_about
    log().info("event", loop=loop, rude=Rude(), nested=[Rude()], error=round_about)
    (line,) = read(file)
    assert line["rude"] == "<Rude>"
    assert line["nested"] == ["<Rude>"]
    assert "<list>" in json.dumps(line["loop"])
    assert line["error"]["cause"]["type"] == "KeyError"


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=15,
)


@given(json_like)
def test_what_is_printable_is_json(value: object) -> None:
    assert json.loads(json.dumps(printable(value), allow_nan=False)) == printable(value)


class Noisy:
    """A link whose first message is no frame; the rest is as sent."""

    def __init__(self, link: Link) -> None:
        self.peer = link.peer
        self.send, self.send_eof, self.aclose = link.send, link.send_eof, link.aclose
        self._receive, self._first = link.receive, True

    async def receive(self) -> Data:
        if self._first:
            self._first = False
            return SEED * 3
        return await self._receive()


async def guarded_once() -> Any:
    """One query; every party has something to log."""
    defender = Defender([(np.eye(3), np.zeros(3)), (np.ones((3, 1)), np.zeros(1))])
    async with open_cluster(seed=1, wrap_link=lambda link, owner: Noisy(link)) as cluster:
        return (await cluster.guard(np.zeros((1, 3)), defender, GuardConfig(policy="label"))).confidences


async def test_the_events_of_the_actors_go_through(file: Path, autojump_clock: Any) -> None:
    await guarded_once()
    lines = [line for line in read(file) if line["event"] == "not a frame"]
    assert {"S0", "S1", "S2"} <= {line["party"] for line in lines}
    assert all(line["level"] == "warning" and line["peer"] and line["reason"] for line in lines)


async def test_actors_answer_whatever_happens_to_their_logs(autojump_clock: Any) -> None:
    lines = configure_logs(Path("/dev/full"), "debug")
    assert (await guarded_once()).shape == (1, 3)
    assert lines.dropped > 3
    lines.close()


# Nothing stops a party -----------------------------------------------------------------------------------------


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    lines = configure_logs(Path("/dev/full"))
    for _ in range(3):
        log().info("event")
    assert lines.dropped == 3
    lines.close()


def test_a_full_disk_under_stderr() -> None:
    """Also at the exit of the process, when Python flushes what its own streams still hold."""
    code = (
        "import sys, structlog; from siguard.deploy.logs import configure_logs\n"
        "lines = configure_logs(sys.stderr); structlog.get_logger().info('event'); print(lines.dropped)\n"
    )
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, check=True)
    assert ran.stdout == b"1\n"


def test_the_next_line_that_works_says_how_many_were_lost(tmp_path: Path) -> None:
    """A limit on a file's size is a disk that fills up in the middle of a line; raised, there is room again."""
    code = (
        "import resource, sys; from pathlib import Path; import structlog\n"
        "from siguard.deploy.logs import configure_logs\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "configure_logs(Path(sys.argv[1])); log = structlog.get_logger()\n"
        "log.info('first')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))\n"
        "log.info('torn'); log.info('lost'); log.info('lost')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "log.info('again'); log.info('last')\n"
    )
    file = tmp_path / "log"
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True)
    first, torn, again, last = file.read_bytes().splitlines()
    assert json.loads(first)["event"] == "first"
    assert len(first) + 1 + len(torn) == 100  # what fitted of the line that did not
    assert json.loads(again)["event"] == "again"
    assert json.loads(again)["log_lines_dropped"] == 3
    assert json.loads(last)["event"] == "last"
    assert "log_lines_dropped" not in json.loads(last)


def test_a_closed_pipe_loses_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        lines = configure_logs(stream)
        log().info("read")
        assert json.loads(os.read(reading, 4096))["event"] == "read"
        os.close(reading)
        log().info("nobody reads")
        assert lines.dropped == 1
        lines.close()


def test_a_reader_that_has_stopped_does_not_stop_the_party() -> None:
    """A pipe that is full would block the whole process in write(); once it is read, the log goes on."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "w") as stream:
        lines = configure_logs(stream)
        while not lines.dropped:
            log().info("x" * 400)
        log().info("dropped too")
        assert lines.dropped == 2
        for line in (source.readline() for _ in range(20)):
            assert json.loads(line)["event"] == "x" * 400
        log().info("again")
        assert lines.dropped == 0
        lines.close()
        stream.close()
        assert json.loads(source.read().splitlines()[-1])["log_lines_dropped"] == 2


def test_a_stream_closed_by_its_owner_is_not_mistaken_for_another_one(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        number = stream.fileno()
        lines = configure_logs(stream)
    with (tmp_path / "data").open("wb") as data:
        assert data.fileno() == number
        log().info("event")
        assert (tmp_path / "data").read_bytes() == b""
        lines.close()
        log().info("after the end")
        assert lines.dropped == 1
    assert len(read(tmp_path / "log")) == 1


def test_long_texts_are_cut_and_a_line_fits_into_a_pipe() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "w") as stream:
        lines = configure_logs(stream)
        log().info("z" * 1000, session="ab")
        log().info("y" * 1000, **{f"field{index}": "\U0001f600" * 400 for index in range(9)})
        lines.close()
        stream.close()
        cut, brief = (json.loads(line) for line in source.read().splitlines())
    assert cut["event"] == "z" * 500 + "..."
    assert brief["event"] == "y" * 100
    assert brief["log_line_too_long"] > 9 * 4000
    assert brief["party"] == "S0"


def test_a_field_named_like_our_own(file: Path) -> None:
    log().info("event %d", 1, args="mine", timestamp="then", level="odd", log_lines_dropped=5)
    (line,) = read(file)
    assert line["args"] == [1]


def test_lines_of_threads_do_not_mix(file: Path) -> None:
    threads = [
        threading.Thread(target=lambda name=name: [log().info(name * 50) for _ in range(50)]) for name in "wxyz"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = sorted(line["event"] for line in read(file))
    assert events == sorted(name * 50 for name in "wxyz" for _ in range(50))


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    lines = LogLines(tmp_path / "log")
    lines.close()
    lines.close()
