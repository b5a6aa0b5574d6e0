"""Values of a history as JSON, and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from colab_keras_bg.training_state.plain import told, untold


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        None,
        "text",
        [1, [2.0, None]],
        (1, (2, [3])),
        {"a": (1,)},
        np.float16(0.1),
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.array([0.1, np.inf], dtype=np.float32),
        np.array(True),
    ],
    ids=repr,
)
def test_comes_back(value: Any) -> None:
    """A value comes back with its type and its bits."""
    back = untold(json.loads(json.dumps(told(value))))
    assert type(back) is type(value)
    if isinstance(value, np.ndarray | np.generic):
        assert (back.dtype, back.shape) == (value.dtype, value.shape)
        assert back.tobytes() == value.tobytes()
    else:
        assert back == value


@pytest.mark.parametrize(
    "written",
    [
        ["S999999999999", "", ["x"]],
        ["object", "", ["x"]],
        ["no such type", "", [1]],
        ["float32", "", [[1], [2, 3]]],
        ["float32"],
        7,
    ],
    ids=repr,
)
def test_somebody_elses(written: Any) -> None:
    """What is no array of numbers is left as it was written."""
    assert untold({"__array__": written}) == {"__array__": written}
