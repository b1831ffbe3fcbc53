"""Label maps of an evaluation, kept until its plots are drawn."""

import zlib
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Predictions:
    """Class indices uint8 `(X, Y, Z)` by model and case, compressed: label maps shrink to about a hundredth."""

    _kept: dict[tuple[str, str], tuple[tuple[int, ...], bytes]] = field(default_factory=dict)

    def add(self, model: str, case: str, indices: np.ndarray) -> None:
        self._kept[model, case] = indices.shape, zlib.compress(indices.tobytes(), level=1)

    def get(self, model: str, case: str) -> np.ndarray:
        shape, data = self._kept[model, case]
        return np.frombuffer(zlib.decompress(data), dtype=np.uint8).reshape(shape)
