"""Random damage is found out, and the fuzzer would see it if it were not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from colab_keras_bg.checkpoint import reading
from colab_keras_bg.testing.fuzz import Fuzz, main


def test_damage_is_found_out(tmp_path: Path) -> None:
    """
    Each of many random damages is found out, and the rest hit nothing.
    """
    fuzz = Fuzz(tmp_path, random.Random(7))
    for _ in range(300):
        fuzz.damage_once()
    assert [] == fuzz.wrong
    assert fuzz.found > 200
    assert 300 == fuzz.found + fuzz.harmless


@pytest.mark.parametrize("part", ["state", "tensors", "references"])
def test_what_is_not_verified_is_seen(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Were a part of a checkpoint not verified, the fuzzer would say so.
    """
    fuzz = Fuzz(tmp_path, random.Random(7))
    changed = reading._changed

    def trusting(views: Any, manifest: Any, watch: Any) -> str | None:
        referred = manifest.references
        looked_at = {
            key: view
            for key, view in views.items()
            if (key in referred) == (part == "tensors")
        }
        return changed(looked_at, manifest, watch)

    if part == "state":
        monkeypatch.setattr(reading, "_is_as_written", lambda *_: True)
    else:
        monkeypatch.setattr(reading, "_changed", trusting)
    for _ in range(300):
        fuzz.damage_once()
    assert any("was loaded DAMAGED" in line for line in fuzz.wrong)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The command tells its seed and what came of it.
    """
    assert 0 == main(["--damages=20", "--seed=3"])
    said = capsys.readouterr().out
    assert "fuzz seed 3" in said
    assert "20 damages: " in said
    assert ", 0 wrong" in said
