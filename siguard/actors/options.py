"""What callers pass to a cluster, checked before anything is sent; each error names the option."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.nn.model import Defender, Model


def checked_config(config: Any) -> GuardConfig:
    """The configuration of a call; the default one for None."""
    if config is None:
        return GuardConfig()
    if not isinstance(config, GuardConfig):
        raise InputError(f"config: found {type(config).__name__}; expected a siguard.GuardConfig")
    return config


def check_networks(defender: Any, model: Any) -> None:
    """Networks of a call without data; model: None for logits."""
    if not isinstance(defender, Defender):
        raise InputError(f"defender: found {type(defender).__name__}; expected a siguard.Defender")
    if model is not None and not isinstance(model, Model):
        raise InputError(f"model: found {type(model).__name__}; expected a siguard.Model, or None for logits")
    if model is not None and defender.classes != model.classes:
        raise InputError(
            f"defender: it takes {defender.classes} confidences but the model gives {model.classes}; "
            "pass the classifier trained for this model"
        )


def checked_options(seed: Any, allow: Any, deadline: Any) -> tuple[GuardConfig, ...] | None:
    """The configurations of ``allow``, once; raises `InputError` naming the option."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"seed: found {seed!r}; allowed: a whole number or None")
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not deadline > 0:
        raise InputError(f"deadline: found {deadline!r}; allowed: seconds above 0")
    if allow is None:
        return None
    configs = tuple(allow) if isinstance(allow, Iterable) else (None,)
    if not all(isinstance(config, GuardConfig) for config in configs):
        raise InputError(f"allow: found {allow!r}; expected GuardConfig objects in a list, or None")
    return configs
