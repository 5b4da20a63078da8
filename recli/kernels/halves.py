"""When a half-sweep reads rows in half precision, alike on every device, so that all round the same rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A sweep of few steps is rough, and waits for the rows that it gathers from a table that is larger than a cache: half
# precision serves it as well, with half the bytes. float16 numbers are kept below 2^15.
EXACT_STEPS, WHOLE_BYTES, HALF_EXPONENT = 8, 1 << 20, 15


def half_exponent(spectrum: NDArray[np.float64] | None, steps: int, nbytes: int) -> int | None:
    """The e of which 2^e times a table of so many bytes is to be rounded to float16, or None where it is not.

    spectrum: the eigenvalues of its Gram matrix, where it is in their basis.
    """
    if spectrum is None or steps >= EXACT_STEPS or nbytes <= WHOLE_BYTES:
        return None
    largest = np.sqrt(spectrum.max())  # a column's norm: no entry is larger
    return int(np.clip(HALF_EXPONENT - np.frexp(largest)[1], -126, 126))
