"""Tables of a configuration file: strict, frozen, and each key with its meaning and what is allowed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table: no other keys than its own, no other types, no change."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def setting(default: Any, meaning: str, allowed: str, **constraints: Any) -> Any:
    """A key with its default; both texts stand in error messages and in docs."""
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed}, **constraints)
