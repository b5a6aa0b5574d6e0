"""What a sidecar remembers is believed only where it was taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from colab_keras_bg.sidecar import notes
from colab_keras_bg.sidecar.notes import Notes


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool of which a sidecar has taken notes."""
    path = tmp_path / "spool"
    path.mkdir()
    found = Notes(path)
    found.claim = "claimed"
    found.begun_for = "launch"
    return path


def told(path: Path) -> tuple[str, str, str]:
    """What is remembered there."""
    found = Notes(path)
    return found.holder, found.claim, found.begun_for


def test_the_next_sidecar_knows_them(spool: Path) -> None:
    """The name stays, and so does what was noted."""
    assert told(spool) == (Notes(spool).holder, "claimed", "launch")
    assert len(Notes(spool).holder) == 16


def test_a_copy_is_another_holder(spool: Path, tmp_path: Path) -> None:
    """It begins anew, and the one that was copied does not notice."""
    before = told(spool)
    copy = tmp_path / "copy"
    shutil.copytree(spool, copy)
    holder, *rest = told(copy)
    assert rest == ["", ""]
    assert holder != before[0]
    assert told(spool) == before


def test_an_image_of_the_machine_is_another_holder(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same disk, started a second time, somewhere else or here."""
    before = told(spool)
    boot = tmp_path / "boot"
    boot.write_text("another boot")
    monkeypatch.setattr(notes, "_BOOT", boot)
    holder, *rest = told(spool)
    assert rest == ["", ""]
    assert holder != before[0]
