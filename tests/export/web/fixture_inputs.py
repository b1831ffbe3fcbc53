"""Small inputs of the fixtures, and their forms in JSON."""

import base64
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attunet.errors import InputError


def affines() -> dict[str, np.ndarray]:
    """Straight, permuted, oblique, and sheared as with a tilted gantry."""
    turn = np.deg2rad(38)
    oblique = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0.1], [0, -0.1, 1]])
    tilted = np.diag([-0.8, 0.8, 5.0])
    tilted[1, 2] = 2.9
    parts = {
        "LAS": np.diag([-2.0, 2.0, 8.0]),
        "SPR": np.array([[0, 0, 3.0], [0, -1.5, 0], [1.2, 0, 0]]),
        "oblique": oblique * [1.5, 1.5, 6],
        "tilted": tilted,
    }
    return {name: nib.affines.from_matvec(part, (10, -20, 30)) for name, part in parts.items()}


def image(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Noise with a few extreme voxels, which clipping cuts."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 90.0, shape)
    values.flat[:3] = (0, 2000, 3000)
    return (values % 251 if dtype == "uint8" else values).astype(dtype)


def flat(array: np.ndarray) -> list[Any]:
    """First axis fastest, as the page keeps volumes."""
    return np.asarray(array).ravel(order="F").tolist()


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def refused(read: Callable[[Path], object], name: str, data: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            read(path)
        except InputError as error:
            return str(error).replace(f"{folder}/", "")
    raise AssertionError(f"{name} was read")
