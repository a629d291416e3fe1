"""Names for the array types of this package.

Shapes are in the docstrings: n rows of the pool, b rows of a block, k kept rows, p pairs, d
dimensions.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
# Rows of one matrix, rows of the other.
IndexPairs: TypeAlias = tuple[Indices, Indices]
