"""Vectors of aligned arrays never span two cache lines."""

from __future__ import annotations

import numpy as np
import pytest

from recli.kernels.cpu import aligned


@pytest.mark.parametrize("shape", [(0, 16), (1, 1), (3, 48), (1000, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_as_empty_but_at_a_line(shape: tuple[int, ...], dtype: type) -> None:
    array = aligned.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % aligned.LINE == 0 or array.size == 0
    array[:] = 1
    assert (array == 1).all()


def test_zeros_are_zero_at_a_line_and_bytes_can_be_used_again() -> None:
    array = aligned.zeros((7, 5))
    assert array.dtype == np.float32
    assert array.ctypes.data % aligned.LINE == 0
    assert not array.any()
    raw = np.empty(aligned.LINE + 4 * 12, np.uint8)
    view = aligned.within(raw, (3, 4))
    assert view.ctypes.data % aligned.LINE == 0
    assert view.base is raw
    view[:] = 7
    assert (aligned.within(raw, (12,)) == 7).all()
