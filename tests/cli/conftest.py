"""A place to run commands in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Workplace


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """An empty workplace, whose processes end with the test."""
    workplace = Workplace(tmp_path)
    yield workplace
    workplace.close()
