"""An array in memory as a volume."""

import numpy as np

from attunet.errors import InputError
from attunet.volumes.volume import Volume

AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}  # code: axis of RAS+, sign


def volume_of_array(data: np.ndarray, spacing: tuple[float, float, float], orientation: str) -> Volume:
    """The volume of `data` `(X, Y, Z)` or `(C, X, Y, Z)` with voxels of `spacing` in mm along X, Y, Z, and axes with
    the directions of nibabel's axis codes; voxel 0 is the origin. Raises InputError for values that are no real
    numbers, a masked array, another number of axes, a spacing that is not positive, and codes that name an axis twice.
    """
    if not isinstance(data, np.ndarray) or isinstance(data, np.ma.MaskedArray) or data.dtype.kind not in "iuf":
        got = f"{type(data).__name__}{f' of {data.dtype}' if hasattr(data, 'dtype') else ''}"
        raise InputError(f"data: must be a NumPy array of integers or floats, without a mask, got {got}")
    channels = data[None] if data.ndim == 3 else data
    if channels.ndim != 4 or 0 in channels.shape:
        raise InputError(f"data: must be an array (X, Y, Z) or (C, X, Y, Z), got the shape {data.shape}")
    directions = [AXES.get(code, (-1, 0)) for code in orientation] if isinstance(orientation, str) else []
    if sorted(axis for axis, _ in directions) != [0, 1, 2]:
        raise InputError(f"orientation: must be three axis codes such as RAS or LPS, got {orientation!r}")
    try:
        sizes = [float(v) for v in spacing]
    except (TypeError, ValueError):
        sizes = []
    if len(sizes) != 3 or not all(np.isfinite(v) and v > 0 for v in sizes):
        raise InputError(f"spacing: must be three positive numbers in mm, got {str(spacing)[:80]}")
    affine = np.diag([0.0, 0, 0, 1])
    for column, ((axis, sign), size) in enumerate(zip(directions, sizes, strict=True)):
        affine[axis, column] = sign * size
    return Volume(channels, affine)
