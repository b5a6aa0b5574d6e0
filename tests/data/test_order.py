"""The order of samples is a pure function of the seed and the epoch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from colab_keras_bg.data.order import epoch_order

# Stored once. If a change of NumPy or of ours gives other numbers, every run
# that is under way would go on in another order: then the change is wrong.
GOLDEN = {
    (10, 0, 0): [0, 2, 9, 1, 8, 5, 4, 3, 6, 7],
    (10, 0, 1): [5, 3, 7, 8, 2, 4, 1, 0, 6, 9],
    (10, 1, 0): [3, 5, 2, 9, 7, 0, 8, 6, 1, 4],
    (10, 2**63 - 1, 12345): [8, 1, 7, 0, 9, 2, 4, 6, 3, 5],
}
GOLDEN_SHA256 = {
    (1437, 0, 0): "69bbbedd92f83354632ad70ff5a64d42"
    "f7f5a243d79aad5da30e34f0b00ed187",
    (1437, 0, 19): "dac06fc8b0e53a17e67c6f116b51aaa3"
    "9e2a9d4556e1ca38b512f273c409fcf8",
    (100_000, 7, 3): "bed16978ae5ebca6f03bfa9e4a9258e8"
    "9618fef68f605a64267cebabffd70156",
}


@pytest.mark.parametrize("key", GOLDEN)
def test_golden(key: tuple[int, int, int]) -> None:
    """The order is the one that was stored: on any platform and version."""
    samples, seed, epoch = key
    order = epoch_order(samples, seed=seed, epoch=epoch)
    assert order.tolist() == GOLDEN[key]


@pytest.mark.parametrize("key", GOLDEN_SHA256)
def test_golden_of_many(key: tuple[int, int, int]) -> None:
    """So are those of as many samples as people train on."""
    samples, seed, epoch = key
    order = epoch_order(samples, seed=seed, epoch=epoch)
    content = order.astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN_SHA256[key]


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 10, 1000, 1437, 100_003])
def test_permutation(samples: int) -> None:
    """Each sample comes once in an epoch, however many there are."""
    order = epoch_order(samples, seed=5, epoch=3)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(samples))


def test_same_again() -> None:
    """The same seed and epoch give the same order, whatever came before."""
    first = epoch_order(1000, seed=5, epoch=3)
    np.random.seed(0)
    epoch_order(1000, seed=5, epoch=4)
    assert epoch_order(1000, seed=5, epoch=3).tolist() == first.tolist()


def test_differs_between_epochs_and_seeds() -> None:
    """No two epochs and no two seeds share an order, nor swapping them."""
    orders = {
        tuple(epoch_order(100, seed=seed, epoch=epoch).tolist())
        for seed in (0, 1, 2, 7, 2**32, 2**63 - 1)
        for epoch in (0, 1, 2, 7, 1000)
    }
    assert len(orders) == 6 * 5


def test_is_mixed() -> None:
    """Each place is taken by each sample about equally often."""
    orders = np.stack(
        [epoch_order(10, seed=1, epoch=epoch) for epoch in range(2000)]
    )
    for place in range(10):
        counts = np.bincount(orders[:, place], minlength=10)
        assert counts.min() > 140
        assert counts.max() < 260


def test_no_state_is_used() -> None:
    """NumPy's global generator is neither asked nor moved."""
    before = np.random.get_state(legacy=False)
    epoch_order(1000, seed=5, epoch=3)
    after = np.random.get_state(legacy=False)
    assert str(before) == str(after)
