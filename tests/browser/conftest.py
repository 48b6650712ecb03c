"""Tests that need Chromium run when this folder is named, as ``make browser-test`` does, not with all others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# The samples are those of the tests without a browser.
sys.path.insert(0, str(HERE.parent / "proofs"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path == HERE or HERE in path.parents for path in named) else True
