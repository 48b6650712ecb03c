"""The guard on SPU: three parties of ABY3 in one process, semi-honest, 64-bit ring.  Runs under SPU's interpreter.

    python spu_guard.py INPUT.npz OUTPUT.npz POLICY

Speaks with `peers.py` as told in `peer_process.py`.  Nothing is revealed but the confidences.  What is
computed is in spu_function.py.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import spu  # type: ignore[import-not-found]
from serving import FloatArray, Layers, read_input, serve
from spu import libspu
from spu.utils import frontend  # type: ignore[import-not-found]
from spu_function import FRACTION, Guard, Secret

PARTIES = 3


class Parties:
    """Three runtimes in this process, one thread each, that hold shares of h."""

    def __init__(self, policy: str, logits: FloatArray, layers: Layers, profiled: bool) -> None:
        self.config = libspu.RuntimeConfig(libspu.ProtocolKind.ABY3, libspu.FieldType.FM64, FRACTION)
        # The default, a power of 1 + x / 2^8, is too coarse for the guard.
        self.config.fxp_exp_mode = libspu.RuntimeConfig.ExpMode.EXP_PADE
        self.config.enable_pphlo_profile = self.config.enable_hal_profile = profiled
        inputs = [part.astype(np.float32) for part in (logits, *(p for layer in layers for p in layer))]

        def function(*arguments: Secret) -> Secret:
            z, *rest = arguments
            return Guard(list(zip(rest[::2], rest[1::2], strict=True))).run(policy, z)

        self.executable, _ = frontend.compile(
            frontend.Kind.JAX,
            function,
            tuple(inputs),
            {},
            [f"in{k}" for k in range(len(inputs))],
            [libspu.Visibility.VIS_SECRET] * len(inputs),
            lambda flat: [f"out{k}" for k in range(len(flat))],
        )
        self.io = spu.Io(PARTIES, self.config)
        names = libspu.link.Desc()
        for rank in range(PARTIES):
            names.add_party(f"party{rank}", f"thread{rank}")
        self.runtimes = together(lambda rank: spu.Runtime(libspu.link.create_mem(names, rank), self.config))
        shares = [self.shared(part) for part in inputs[1:]]
        together(lambda rank: [self.runtimes[rank].set_var(f"in{k}", s[rank]) for k, s in enumerate(shares, 1)])

    def shared(self, values: npt.NDArray[np.float32]) -> list[Any]:
        """One share for each party."""
        shares: list[Any] = self.io.make_shares(values, libspu.Visibility.VIS_SECRET)
        return shares

    def call(self, logits: npt.NDArray[np.float32]) -> FloatArray:
        """Share the logits, run, reconstruct."""
        shares = self.shared(logits)

        def work(rank: int) -> Any:
            runtime = self.runtimes[rank]
            runtime.set_var("in0", shares[rank])
            runtime.run(self.executable)
            return runtime.get_var("out0")

        confidences: FloatArray = self.io.reconstruct(together(work)).astype(np.float64)
        return confidences


def together(work: Callable[[int], Any]) -> list[Any]:
    """What ``work`` returns for each rank, each in a thread; the first failure ends the program."""
    done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

    def one(rank: int) -> None:
        try:
            done.put((rank, work(rank), None))
        except BaseException as error:
            done.put((rank, None, error))

    results: list[Any] = [None] * PARTIES
    for rank in range(PARTIES):
        # Daemons: a party whose peer has failed waits for it, and must not keep the program alive.
        threading.Thread(target=one, args=(rank,), daemon=True).start()
    for _ in range(PARTIES):
        rank, result, error = done.get()
        if error is not None:
            raise error
        results[rank] = result
    return results


def costs(policy: str, logits: FloatArray, layers: Layers) -> dict[str, int]:
    """Bytes that all parties send in one call, and the most messages that one of them sends.

    SPU prints them when it profiles, from C++, so the descriptors are redirected.
    """
    parties = Parties(policy, logits, layers, profiled=True)
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        try:
            parties.call(logits.astype(np.float32))
        finally:
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
        log.seek(0)
        text = log.read().decode(errors="replace")
    found = re.findall(r"Link details: total send bytes (\d+), recv bytes \d+, send actions (\d+)", text)
    if len(found) != PARTIES:
        logging.warning("SPU printed link details of %d parties; expected %d", len(found), PARTIES)
        return {}
    return {"bytes_total": sum(int(sent) for sent, _ in found), "rounds": max(int(actions) for _, actions in found)}


def main(input_path: str, answer_path: str, policy: str) -> None:
    """Compile, count, share h, then answer calls."""
    logits, layers = read_input(input_path, policy)
    z = logits.astype(np.float32)
    counted = costs(policy, logits, layers)
    parties = Parties(policy, logits, layers, profiled=False)

    def call() -> tuple[FloatArray, dict[str, Any]]:
        start = time.perf_counter()
        confidences = parties.call(z)
        return confidences, {"seconds": time.perf_counter() - start, **counted}

    serve(answer_path, call)


if __name__ == "__main__":
    main(*sys.argv[1:4])
