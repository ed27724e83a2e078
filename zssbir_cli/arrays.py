"""The arrays that rooms hand to each other, by what they hold. (`types.py` imports nothing heavy; this, numpy.)"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
