"""Nobody looks at a secret and nothing says one: shares refuse every use that depends on their value.

Every policy runs on the shipped share types with each refusal counted, so that code which swallows the error is
found too; every word of every share, mask, frame and key of the run is looked for in all that the run says.  Code
that reads the array inside a share is a gate: the exact rung and the shape rung see it, not this one.
"""

from __future__ import annotations

import copy
import io
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from siguard.errors import SecretError
from siguard.guard.config import GuardConfig
from siguard.mpc.secret import Secret
from siguard.mpc.share import Additive, Opened, Share
from siguard.proofsim.capture import Secrets, of_error
from siguard.proofsim.claims import ALL, Claim, Scope
from siguard.proofsim.watched import WatchedRun, secret_types, watched_run
from siguard.ring import Z64, RingArray

#: How each secret type is made from an array, to be probed.
_MAKERS: dict[type[Secret], Callable[[RingArray], Secret]] = {
    Share: lambda words: Share(0, Z64, words, words + words, 0),
    Additive: lambda words: Additive(1, Z64, words, 0),
    Opened: lambda words: Opened(2, Z64, words, 0),
}
#: Uses that depend on the value.
_LOOKS: dict[str, Callable[[Any], object]] = {
    "bool": bool,
    "not": operator.not_,
    "and": lambda x: x and 1,
    "==": lambda x: x == 0,
    "== itself": lambda x: x == x,
    "!=": lambda x: x != 0,
    "<": lambda x: x < 0,
    "<=": lambda x: x <= 0,
    ">": lambda x: x > 0,
    ">=": lambda x: x >= 0,
    "array == x": lambda x: np.zeros(3) == x,
    "1 in x": lambda x: 1 in x,
    "x in list": lambda x: x in [1],
    "index": operator.index,
    "list[x]": lambda x: [1, 2][x],
    "array[x]": lambda x: np.zeros(3)[x],
    "range": range,
    "int": int,
    "float": float,
    "complex": complex,
    "bytes": bytes,
    "len": len,
    "iter": iter,
    "unpack": lambda x: [*x],
    "str": str,
    "format": format,
    "f-string": lambda x: f"{x}",
    "%s": lambda x: "%s" % x,  # noqa: UP031 - the point
    "print": lambda x: print(x, file=io.StringIO()),
    "hash": hash,
    "dict key": lambda x: {x: 1},
    "set": lambda x: {x},
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "np.asarray": np.asarray,
    "np.concatenate": lambda x: np.concatenate([x, x]),
    "np.where": lambda x: np.where(x, 1, 0),
}


def check(scope: Scope) -> list[Claim]:
    """Refusals, and what is said: a run of each policy, with failing sessions (full: three seeds)."""
    runs = [
        watched_run(_config(policy, scope.full), seed)
        for policy in scope.policies
        for seed in range(scope.seed, scope.seed + (3 if scope.full else 1))
    ]
    return [_nothing_is_refused(runs), _everything_would_be(), _nothing_is_said(runs), _no_error_says(runs)]


def _config(policy: str, full: bool) -> GuardConfig:
    if policy == "siguard":
        return GuardConfig(policy, outer=2, inner=3 if full else 1)
    if policy == "decay":
        return GuardConfig(policy, inner=3 if full else 2)
    return GuardConfig(policy)


# The claims -------------------------------------------------------------------------------------------------------


def _nothing_is_refused(runs: list[WatchedRun]) -> Claim:
    problems = [f"{run.name}: {use}" for run in runs for use in dict.fromkeys(run.refused)]
    problems += [f"{run.name}: {run.broke}" for run in runs if run.broke]
    text = (
        "no policy branches on, indexes with, measures, compares, iterates over, formats, hashes, pickles or "
        "converts a share, nor tries to and swallows the refusal"
    )
    return _claim(text, sum(run.watched for run in runs), problems)


def _everything_would_be() -> Claim:
    words = np.random.default_rng(0).integers(1 << 63, 1 << 64, 3, np.uint64)
    problems, cases = [], 0
    for kind in secret_types():
        if kind not in _MAKERS:
            problems.append(f"{kind.__name__} is not probed")
            continue
        secret = _MAKERS[kind](words)
        if Secrets([words]).found_in(repr(secret).encode()):
            problems.append(f"repr of {kind.__name__} shows its words")
        for name, look in _LOOKS.items():
            cases += 1
            try:
                look(secret)
            except SecretError:
                continue
            except Exception as error:
                problems.append(f"{name} of {kind.__name__} ends with {type(error).__name__}")
            else:
                problems.append(f"{name} of {kind.__name__} is not refused")
    return _claim("every share type refuses every such use", cases, problems)


def _nothing_is_said(runs: list[WatchedRun]) -> Claim:
    problems = [
        f"{run.name}: a secret in {form} form" for run in runs for form in run.secrets.found_in(run.said.getvalue())
    ]
    text = (
        "no log event and no output, in failing sessions either, holds a planted feature, logit or weight, an "
        "answer, a key, or a word of 48 bits or more of a share, mask or frame, in decimal, hexadecimal, real or "
        "raw form"
    )
    return _claim(text, sum(len(run.secrets) for run in runs), problems)


def _no_error_says(runs: list[WatchedRun]) -> Claim:
    errors = [(run, error) for run in runs for error in run.errors]
    problems = [
        f"{run.name}: a secret in {form} form in a {type(error).__name__}"
        for run, error in errors
        for form in run.secrets.found_in(of_error(error))
    ]
    return _claim("no message, note, cause or traceback of a failing session holds one", len(errors), problems)


def _claim(text: str, cases: int, problems: list[str]) -> Claim:
    return Claim(text, "taint", ALL, cases, cases > 0 and not problems, problem="; ".join(problems[:4]))
