"""iALS: implicit alternating least squares, half-sweeps of preconditioned conjugate gradients (see kernels/spec.py for the objective)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from recli.config import FactorizeConfig
from recli.errors import DivergedError
from recli.kernels.spec import Csr, Floats, Kernels

STEPS = 2  # conjugate-gradient steps a half-sweep, warm-started: more cost time and bring the objective down no faster
RELAXATION = 1.4  # of every half-sweep but the first iteration's; 1.3 to 1.6 save a quarter of the iterations
