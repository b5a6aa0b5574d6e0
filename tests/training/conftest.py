"""The training tests run on the Keras backend that is chosen or installed."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

pytest.importorskip("keras", reason="needs Keras and a backend")
