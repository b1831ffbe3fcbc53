"""Generated data sets unlike abdominal MRI, each with what makes a kind of public data set hard."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Case = tuple[np.ndarray, np.ndarray]  # images (channels, X, Y, Z) and labels (X, Y, Z)


@dataclass(frozen=True)
class StandIn:
    like: str  # the public data sets that it stands for
    cases: int  # their number, a patient each
    make: Callable[[np.random.Generator], Case]
    spacing: tuple[float, ...] = ()  # of the voxels in mm; empty for pictures


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    """Coordinates `(axes, *shape)` from -1 to 1."""
    return np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Smooth noise of deviation 1."""
    values = gaussian_filter(rng.standard_normal(shape), sigma)
    return values / values.std()


def _ball(grid: np.ndarray, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    offset = (grid - centre.reshape(-1, 1, 1, 1)) / radius.reshape(-1, 1, 1, 1)
    return (offset**2).sum(axis=0) < 1


def crops(rng: np.random.Generator) -> Case:
    """A bent tube in low contrast, its front and back two classes that only their place tells apart."""
    grid = _grid((36, 48, 32))
    x, y, z = grid + 0.05 * np.stack([_noise(rng, grid.shape[1:], 4) for _ in range(3)])
    bend, lift = rng.uniform(0.2, 0.4), rng.uniform(-0.2, 0.2)
    thick = rng.uniform(0.22, 0.3) * (1 + 0.4 * y)
    tube = (np.hypot(x - bend * y**2 + 0.1, z - lift * y) < thick) & (abs(y) < 0.7)
    labels = np.where(tube, np.where(y > rng.uniform(0.05, 0.2), 1, 2), 0)
    image = 100 + 14 * tube + 9 * _noise(rng, tube.shape, 3) + 7 * rng.standard_normal(tube.shape)
    return image[None], labels


def membranes(rng: np.random.Generator) -> Case:
    """A picture of cells between thin dark walls, with organelles as dark as these."""
    side = 192
    shift = np.stack([_noise(rng, (side, side), 12) for _ in range(2)])
    places = np.moveaxis(np.indices((side, side)) + 3 * shift, 0, -1)
    near = np.asarray(cKDTree(rng.uniform(0, side, (55, 2))).query(places, k=2)[0])
    wall = near[..., 1] - near[..., 0] < 2.5
    organelles = cKDTree(rng.uniform(0, side, (70, 2))).query(places)[0] < rng.uniform(2, 4)
    dark = gaussian_filter(np.where(wall | organelles, 1.0, 0.0), 0.8)
    image = 170 - 85 * dark + 12 * _noise(rng, dark.shape, 10) + 14 * rng.standard_normal(dark.shape)
    return image[None, :, :, None], wall[:, :, None].astype(int)


def rare(rng: np.random.Generator) -> Case:
    """Round lesions, about one voxel in a thousand, among vessels of the same brightness."""
    shape = (160, 160, 6)
    grid, labels, vessels = _grid(shape), np.zeros(shape, int), np.zeros(shape, bool)
    for _ in range(rng.integers(3, 6)):
        radius = rng.uniform(0.03, 0.05)
        labels[_ball(grid, rng.uniform(-0.8, 0.8, 3), np.array([radius, radius, 0.35]))] = 1
    for _ in range(12):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.7, 0.7)
        across = np.cos(angle) * grid[0] + np.sin(angle) * grid[1] + 0.1 * np.sin(4 * grid[1]) - offset
        vessels |= abs(across) < rng.uniform(0.015, 0.035)
    image = 80 + 45 * ((labels > 0) | vessels) + 10 * _noise(rng, shape, 4) + 8 * rng.standard_normal(shape)
    return image[None], labels


def large_ct(rng: np.random.Generator) -> Case:
    """512 × 512 slices in Hounsfield units: two organs in a body with fat, bone and a table outside of it."""
    shape = (512, 512, 6)
    grid = _grid(shape) + 0.02 * np.stack([_noise(rng, shape, 12) for _ in range(3)])
    body = _ball(grid, np.zeros(3), np.array([0.75, 0.55, 9]))
    image = np.where(body, -90.0, -1000.0)
    image[_ball(grid, np.zeros(3), np.array([0.68, 0.48, 9]))] = 40
    image[_ball(grid, np.array([0, 0.36, 0]), np.array([0.09, 0.09, 9]))] = 500
    image[(abs(grid[1] - 0.66) < 0.02) & (abs(grid[0]) < 0.6)] = 120
    labels = np.zeros(shape, int)
    shift = rng.uniform(-0.05, 0.05, 2)
    large, small = np.array([-0.32 + shift[0], -0.1, 0]), np.array([0.25, 0.2 + shift[1], 0])
    for label, (place, size, grey) in enumerate(((large, (0.27, 0.25, 1.6), 105), (small, (0.1, 0.08, 1.2), 150)), 1):
        organ = _ball(grid, place, np.array(size) * rng.uniform(0.85, 1.15))
        labels[organ], image[organ] = label, grey
    image += 25 * rng.standard_normal(shape) + 10 * _noise(rng, shape, 6)
    return image.round()[None], labels


def four_channels(rng: np.random.Generator) -> Case:
    """A tumour of three parts, of which each channel shows another."""
    shape = (96, 96, 10)
    grid = _grid(shape) + 0.05 * np.stack([_noise(rng, shape, 4) for _ in range(3)])
    brain = _ball(grid, np.zeros(3), np.array([0.85, 0.8, 2]))
    centre, size = rng.uniform(-0.35, 0.35, 3), rng.uniform(0.25, 0.4)
    oedema, core, active = (_ball(grid, centre, size * scale * np.array([1, 1, 2])) for scale in (1, 0.65, 0.4))
    labels = np.select([active, core, oedema], [3, 2, 1]) * brain
    parts = np.stack([labels == value for value in (1, 2, 3)])
    seen = np.array([[10, -25, -10], [5, -10, 50], [35, 15, 20], [40, 5, 5]])
    image = 60 * brain + np.tensordot(seen, parts, axes=1)
    image = image + brain * np.stack([9 * _noise(rng, shape, 3) for _ in seen])
    return image + 6 * rng.standard_normal(image.shape), labels


def small_part(rng: np.random.Generator) -> Case:
    """A small part in the middle of whole heads; around it, much that looks like it."""
    shape = (176, 176, 8)
    grid = _grid(shape) + 0.03 * np.stack([_noise(rng, shape, 6) for _ in range(3)])
    head = _ball(grid, np.zeros(3), np.array([0.8, 0.9, 9]))
    size, centre = np.array([0.06, 0.12, 1.5]), rng.uniform(-0.05, 0.05, 3)
    aside = np.array([1, 0, 0])
    sides = [_ball(grid, centre + side * rng.uniform(0.15, 0.19) * aside, size) for side in (-1, 1)]
    labels = np.select(sides, [1, 2])
    alike = np.zeros(shape, bool)
    for angle in rng.uniform(0, 2 * np.pi, 14):
        away = rng.uniform(0.45, 0.75) * np.array([np.cos(angle), np.sin(angle), 0])
        alike |= _ball(grid, away, size * rng.uniform(0.8, 1.2, 3))
    image = 100 * head + 30 * ((labels > 0) | alike) + 8 * _noise(rng, shape, 3) + 8 * rng.standard_normal(shape)
    return image[None], labels


STAND_INS = {
    "crops": StandIn("hippocampus of the Decathlon", 16, crops, (1, 1, 1)),
    "membranes": StandIn("pictures of membranes (ISBI 2012)", 12, membranes),
    "rare": StandIn("lesions of one voxel in a thousand", 20, rare, (1, 1, 4)),
    "large CT": StandIn("CT of 512 × 512 pixels (KiTS, LiTS)", 8, large_ct, (0.8, 0.8, 5)),
    "small part": StandIn("hippocampus in whole heads", 12, small_part, (1.2, 1.2, 4)),
    "four channels": StandIn("tumours in four sequences (BraTS)", 12, four_channels, (2, 2, 6)),
}


def write_stand_in(name: str, folder: Path) -> None:
    """Write the images and masks of a data set to `folder`, as nnU-Net lays them out, pictures as PNG."""
    from PIL import Image

    stand_in = STAND_INS[name]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(stand_in.cases):
        image, labels = stand_in.make(np.random.default_rng((0, number)))
        if not stand_in.spacing:
            grey = image[0, :, :, 0].clip(0, 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / "images" / f"case{number:02d}.png")
            Image.fromarray(labels[:, :, 0].astype(np.uint8)).save(folder / "labels" / f"case{number:02d}.png")
            continue
        affine = np.diag([*stand_in.spacing, 1])
        for channel, values in enumerate(image):
            ending = f"_{channel:04d}" if len(image) > 1 else ""
            scan = nib.Nifti1Image(values.astype(np.int16), affine)
            nib.save(scan, folder / "images" / f"case{number:02d}{ending}.nii.gz")
        mask = nib.Nifti1Image(labels.astype(np.uint8), affine)
        nib.save(mask, folder / "labels" / f"case{number:02d}.nii.gz")
