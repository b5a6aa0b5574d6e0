"""A history is converted once, and what was told does not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from colab_keras_bg.training_state import told_history
from colab_keras_bg.training_state.plain import told
from colab_keras_bg.training_state.told_history import ToldHistory


def test_it_is_told_as_it_is_at_any_moment() -> None:
    """Growing, corrected at its end, cut back, or another list altogether."""
    tells = ToldHistory()
    history: dict[str, Any] = {"loss": []}
    seen = []
    for epoch in range(5):
        history["loss"].append(np.float32(epoch))
        found = tells.told(history)
        assert found == told(history)
        seen.append((found, repr(found)))
        history["loss"][-1] = epoch + 0.5
        assert tells.told(history) == told(history)
    del history["loss"][2:]
    assert tells.told(history) == told(history)
    history["loss"] = [7.0, 8.0, 9.0]
    history["mae"] = (1, np.arange(2))
    assert tells.told(history) == told(history)
    assert all(repr(found) == before for found, before in seen)


def test_the_past_is_not_converted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it costs does not grow with the epochs."""
    converted: list[Any] = []

    def counting(value: Any) -> Any:
        converted.append(value)
        return told(value)

    monkeypatch.setattr(told_history, "told", counting)
    tells = ToldHistory()
    history: dict[str, Any] = {"loss": []}
    for epoch in range(100):
        history["loss"].append(float(epoch))
        tells.told(history)
    assert len(converted) < 2 * 100
