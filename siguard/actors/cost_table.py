"""What a frame costs a party on one machine: the figures behind repeatable virtual time.

`bench/calibrate.py` measures a table; `shipped_table` is the one of this package, and says where it comes from.
"""

from __future__ import annotations

from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siguard.errors import InputError

TABLE_VERSION = 1

_Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameCost(_Model):
    """Seconds of one core: for each frame, and for each of its bytes, header included."""

    per_frame_seconds: _Cost
    per_byte_seconds: _Cost

    def seconds(self, nbytes: int) -> float:
        """Of one frame of ``nbytes`` bytes."""
        return self.per_frame_seconds + self.per_byte_seconds * nbytes


class Fit(_Model):
    """How far the table is from what it was fitted to, as |predicted / measured - 1| over the rows."""

    rows: Annotated[int, Field(ge=1)]
    median_error: _Cost
    largest_error: _Cost


class CostTable(_Model):
    """Costs of a frame at its sender and at its receiver, with all the work that the protocol does around it.

    network: what a frame costs each end beyond that when parties are processes (system calls, sealing).
    """

    version: Annotated[int, Field(ge=TABLE_VERSION, le=TABLE_VERSION)]
    machine: str
    measured: date
    send: FrameCost
    receive: FrameCost
    network: FrameCost
    fit: Fit

    def send_seconds(self, nbytes: int, processes: bool) -> float:
        """What the sender of one frame pays."""
        return self.send.seconds(nbytes) + (self.network.seconds(nbytes) if processes else 0.0)

    def receive_seconds(self, nbytes: int, processes: bool) -> float:
        """What the receiver of one frame pays."""
        return self.receive.seconds(nbytes) + (self.network.seconds(nbytes) if processes else 0.0)


def read_table(text: str, source: str) -> CostTable:
    """The table in a JSON text; raises `InputError` naming ``source``, the field and what is allowed."""
    try:
        return CostTable.model_validate_json(text)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise InputError(
            f"{source}: {'; '.join(problems)}; bench/calibrate.py --write FILE makes a table"
        ) from None


def load_table(path: str | Path) -> CostTable:
    """A table from a file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); expected a cost table in JSON"
        ) from None
    return read_table(text, str(path))


def shipped_table() -> CostTable:
    """The table that comes with the package."""
    file = resources.files("siguard.actors").joinpath("cost_table.json")
    return read_table(file.read_text(encoding="utf-8"), file.name)
