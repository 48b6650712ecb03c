"""Negative controls: deliberate leaks, each patched into the shipped code and caught by the rung that should.

`CONTROLS` lists them with their sources; `run_control` climbs the rungs under one of them.
"""

from siguard.proofsim.controls.catalogue import CONTROLS
from siguard.proofsim.controls.control import BATTERIES, Control, run_control

__all__ = ["BATTERIES", "CONTROLS", "Control", "run_control"]
