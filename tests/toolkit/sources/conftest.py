"""Small scans with labels, and files of them as programs write them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

Organs = dict[int, tuple[float, float, float, float]]
ORGANS: Organs = {1: (-0.45, 0.35, -0.2, 0.34), 2: (0.45, -0.35, 0.3, 0.24)}


def body(
    seed: int, shape: tuple[int, int, int] = (24, 20, 4), organs: Organs = ORGANS
) -> tuple[np.ndarray, np.ndarray]:
    """int16 image and uint8 labels (X, Y, Z), asymmetric on every axis; organs are the brightest."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij"))
    labels = np.zeros(shape, np.uint8)
    image = np.where(grid[0] ** 2 + grid[1] ** 2 < 0.9, 100.0, 0.0)
    for value, (x, y, z, r) in organs.items():
        inside = (grid[0] - x) ** 2 + (grid[1] - y) ** 2 + 0.1 * (grid[2] - z) ** 2 < r * r
        labels[inside], image[inside] = value, 200 + 150 * value
    return (image + rng.normal(0, 6.0, shape)).astype(np.int16), labels


def affine_of(spacing: tuple[float, float, float] = (2.0, 2.0, 6.0)) -> np.ndarray:
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (40, 35, -20)
    return affine


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine_of() if affine is None else affine, dtype=array.dtype), path)
    return path


def save_picture(path: Path, array: Any, **options: Any) -> Path:
    images = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    (array if isinstance(array, images.Image) else images.fromarray(array)).save(path, **options)
    return path


def grey(image: np.ndarray) -> np.ndarray:
    """A slice (X, Y) as an 8-bit picture (rows, columns)."""
    return np.clip(image // 3, 0, 255).astype(np.uint8).T


def plane(
    seed: int, shape: tuple[int, int, int] = (48, 40, 1), organs: Organs = ORGANS
) -> tuple[np.ndarray, np.ndarray]:
    """A picture (rows, columns) of 8 bits, and its labels."""
    image, labels = body(seed, shape, organs)
    return grey(image[:, :, 0]), np.ascontiguousarray(labels[:, :, 0].T)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    functions = (body, affine_of, save_nifti, save_picture, grey, plane)
    return SimpleNamespace(**{function.__name__: function for function in functions})
