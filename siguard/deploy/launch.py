"""The three servers as processes of their own on this machine, started and ended by one program."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import trio

from siguard.actors.session import SERVERS
from siguard.deploy.keys import default_key_file, write_key
from siguard.deploy.loopback import Loopback
from siguard.errors import PartyFailedError

#: Seconds that a server has to end after SIGTERM before it is killed.
_DRAIN_SECONDS = 5.0


class Processes:
    """Servers that run as processes; made by `open_processes`.

    folder: holds deployment.toml, the key files and each server's log and state until the end.
    """

    def __init__(self, loopback: Loopback, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "deployment.toml"
        self._loopback = loopback
        self._running: dict[str, trio.Process] = {}

    def pid(self, server: str) -> int:
        """Process id of a running server."""
        return self._running[server].pid

    def log(self, server: str) -> Path:
        """Where a server writes its log."""
        return self.folder / f"{server}.log"

    def end_of_log(self, server: str, lines: int = 5) -> str:
        """The last lines of a server's log, for messages."""
        text = self.log(server).read_text(encoding="utf-8", errors="replace") if self.log(server).exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    async def start(self, server: str) -> None:
        """Start a server, again after it has ended; it goes on with the same address, key and state."""
        descriptor = self._loopback.listeners[server].socket.fileno()
        command = [sys.executable, "-m", "siguard", "party", "--config", str(self.config), "--as", server]
        command += ["--state", str(self.folder / f"{server}.state"), "--listen-fd", str(descriptor)]
        with self.log(server).open("ab") as log:
            self._running[server] = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[descriptor]
            )

    def signal(self, server: str, number: signal.Signals) -> None:
        """Send a signal to a server."""
        self._running[server].send_signal(number)

    async def wait(self, server: str) -> int:
        """Exit status of a server, once it has ended."""
        return await self._running[server].wait()

    async def stop(self, server: str) -> None:
        """End a server: SIGTERM, and SIGKILL if that does not do."""
        process = self._running.pop(server)
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        with trio.move_on_after(_DRAIN_SECONDS) as scope:
            scope.shield = True
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def stop_all(self) -> None:
        """End every server that runs, side by side."""
        async with trio.open_nursery() as nursery:
            for server in list(self._running):
                nursery.start_soon(self.stop, server)

    async def watch(self) -> None:
        """Raise `PartyFailedError` when a server ends by itself."""
        ended: dict[str, int] = {}

        async def wait(server: str) -> None:
            ended[server] = await self.wait(server)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for server in SERVERS:
                nursery.start_soon(wait, server)
        # Raised outside the nursery, which would wrap it in a group.
        server, status = next(iter(ended.items()))
        raise PartyFailedError(
            f"{server} ended with status {status}; the end of its log:\n{self.end_of_log(server)}", party=server
        )


@asynccontextmanager
async def open_processes(loopback: Loopback) -> AsyncIterator[Processes]:
    """Start S0, S1 and S2; leaving the block ends them and removes their keys, logs and state.

    The listening sockets are closed in any case.
    """
    with ExitStack() as sockets, tempfile.TemporaryDirectory(prefix="siguard-") as name:
        for listener in loopback.listeners.values():
            sockets.callback(listener.socket.close)
        processes = Processes(loopback, Path(name))
        loopback.deployment.write(processes.config)
        for server in SERVERS:
            write_key(default_key_file(processes.config, server), server, loopback.identities[server].signing_key)
        try:
            for server in SERVERS:
                await processes.start(server)
            yield processes
        finally:
            with trio.CancelScope(shield=True):
                await processes.stop_all()
