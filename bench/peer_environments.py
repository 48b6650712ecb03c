"""Virtual environments of the peers that pip installs, with pinned versions, apart from siguard's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

#: What each environment holds: the peer, and what decides its speed.
PINNED: dict[str, tuple[str, ...]] = {
    "spu": ("spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy==1.26.4"),
    "mpyc": ("mpyc==0.11", "numpy==2.4.6", "gmpy2==2.3.2"),
}
_MARKER = ".installed"
#: Seconds for making one environment.
INSTALL_SECONDS = 1_800.0


class PeerMissingError(Exception):
    """A peer cannot run here: says why, and what to do."""


def default_folder() -> Path:
    """Where environments are kept unless told otherwise: below the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "siguard" / "peers"


def interpreter(name: str, folder: Path, *, python: str, install: bool) -> Path:
    """The Python of peer ``name``'s environment, which is made if it is missing and ``install`` allows it.

    python: the interpreter to make it with; a peer's wheels may need another version than siguard's.
    Raises `PeerMissingError`: not installed, or venv or pip failed.
    """
    pins = PINNED[name]
    place = folder / "-".join([name, pins[0].partition("==")[2]])
    found, marker = place / "bin" / "python", place / _MARKER
    # Written last, so that a half-made environment is made again.
    if marker.is_file() and marker.read_text(encoding="utf-8") == "\n".join(pins):
        return found
    if not install:
        raise PeerMissingError(f"no environment in {place}; pass --install to make it with pip ({pins[0]})")
    place.parent.mkdir(parents=True, exist_ok=True)
    _run([python, "-m", "venv", "--clear", str(place)], f"venv with {python}")
    _run(
        [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins],
        f"pip install {pins[0]}",
    )
    marker.write_text("\n".join(pins), encoding="utf-8")
    return found


def _run(command: list[str], what: str) -> None:
    try:
        ran = subprocess.run(  # noqa: S603 - pinned names, no shell
            command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissingError(f"{what} failed: {error}") from None
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()] or ["it printed nothing"]
        raise PeerMissingError(
            f"{what} failed: {lines[-1].strip()}; see whether the peer has wheels for this Python and platform, "
            "and name another Python with --python"
        )
