"""Random damage is found out, and the fuzzer would see it if it were not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from colab_keras_bg.checkpoint import reading
from colab_keras_bg.checkpoint import tensors as safetensors
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


@pytest.mark.parametrize("part", ["files", "references"])
def test_what_is_not_verified_is_seen(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Were files not verified, or what is referred to, the fuzzer would say so.
    """
    fuzz = Fuzz(tmp_path, random.Random(7))
    if part == "files":

        class Trusting(reading.Hasher):
            def digest(self) -> object:  # type: ignore[override]
                class Equal:
                    def __ne__(self, other: object) -> bool:
                        return False

                return Equal()

        monkeypatch.setattr(reading, "Hasher", Trusting)
    else:
        manifest = fuzz._store().manifest(2)
        monkeypatch.setattr(
            safetensors,
            "hash_of_view",
            lambda view: manifest.tensors["frozen"],
        )
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
