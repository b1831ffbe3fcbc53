"""The grid that a case is drawn on, and the trunk that bounds it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

BEND_MM, MAX_BEND_MM = 5.0, 14.0
BODY_POWER = 2.4  # between an ellipse and a box, as a torso is
Point = Sequence[float] | np.ndarray
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Body:
    """A trunk: half-axes in mm of its cross section, thickness of fat and muscle wall, height of the diaphragm."""

    half_width: float
    half_depth: float
    fat: float
    wall: float
    diaphragm: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Body":
        width = rng.uniform(145, 178)
        return cls(width, width * rng.uniform(0.6, 0.72), rng.uniform(4, 20), rng.uniform(7, 13), rng.uniform(88, 108))

    def at(self, x: float, y: float, z: float) -> np.ndarray:
        """A place given in half-widths and half-depths of the cavity, and in mm along the body."""
        inside = self.fat + self.wall
        return np.array([x * (self.half_width - inside), y * (self.half_depth - inside), z])


@dataclass(eq=False)
class Canvas:
    """The grid of one case. place: body coordinates `(3, X, Y, Z)` in mm; image: brightness, about 0 to 1."""

    place: np.ndarray
    image: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    grain: np.ndarray  # smooth noise of deviation 1, the texture of tissues
    to_index: np.ndarray  # (4, 4): straight body coordinates to voxel index, to find the box around an organ

    @classmethod
    def blank(cls, rng: np.random.Generator, reduce: int) -> "Canvas":
        pixels = int(rng.choice([256, 288, 320]))
        spacing = float(np.clip(rng.uniform(410, 470) / pixels, 1.3, 1.9)) * reduce
        between = rng.uniform(7, 9)
        shape = (pixels // reduce, pixels // reduce, int(np.clip(round(rng.uniform(205, 270) / between), 20, 40)))
        oblique = rotation(rng.uniform(-7, 7, 3)) if rng.random() < 0.3 else np.eye(3)
        grid = np.eye(4)  # voxels to mm, left-anterior-superior, around the middle of the trunk
        grid[:3, :3] = oblique @ np.diag([spacing, spacing, between])
        grid[:3, 3] = rng.uniform(-12, 12, 3) - grid[:3, :3] @ ((np.array(shape) - 1) / 2)
        affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ grid
        affine[:3, 3] += rng.uniform(-30, 30, 3)
        lying = np.eye(4)
        lying[:3, :3] = rotation(rng.uniform(-1, 1, 3) * (3, 3, 6))  # nobody lies quite straight
        to_body = (lying @ grid).astype(np.float32)
        x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
        place = np.empty((3, *shape), np.float32)
        for axis, row in enumerate(to_body[:3]):
            np.clip(smooth(rng, shape, nodes=6) * np.float32(BEND_MM), -MAX_BEND_MM, MAX_BEND_MM, out=place[axis])
            place[axis] += row[0] * x + row[1] * y + row[2] * z + row[3]
        grain = gaussian_filter(rng.standard_normal(shape, np.float32), (3 / spacing, 3 / spacing, 0.3), truncate=2.5)
        grain /= grain.std()
        return cls(
            place, np.zeros(shape, np.float32), np.zeros(shape, np.uint8), affine, grain, np.linalg.inv(lying @ grid)
        )

    def ellipsoid(self, center: Point, radii: Point, turn: np.ndarray | None = None) -> tuple[Box, np.ndarray]:
        """The voxels around an ellipsoid (radii in mm, axes turned by `turn`), and the level there: below 1 inside."""
        middle = self.to_index[:3, :3] @ np.asarray(center) + self.to_index[:3, 3]
        reach = np.linalg.norm(self.to_index[:3, :3], axis=1) * (max(radii) + MAX_BEND_MM)
        low = np.clip(np.floor(middle - reach), 0, self.labels.shape).astype(int)
        high = np.clip(np.ceil(middle + reach) + 1, 0, self.labels.shape).astype(int)
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        offset = self.place[:, *box] - np.asarray(center, np.float32)[:, None, None, None]
        if turn is not None:
            offset = np.einsum("ji,jxyz->ixyz", turn.astype(np.float32), offset)
        offset /= np.asarray(radii, np.float32)[:, None, None, None]
        return box, np.einsum("ixyz,ixyz->xyz", offset, offset)

    def paint(self, box: Box, inside: np.ndarray, brightness: float, *, label: int = 0, texture: float = 0.05) -> None:
        """Paint pixels of a box with a brightness, its texture and, above 0, a label.

        Example:
            >>> canvas.paint(box, level < 1, 0.6, label=SPLEEN, texture=0.06)  # doctest: +SKIP
        """
        self.image[box][inside] = np.float32(brightness) * (1 + np.float32(texture) * self.grain[box][inside])
        self.labels[box][inside] = label

    def blob(
        self, center: Point, radii: Point, brightness: float, *, turn: np.ndarray | None = None, texture: float = 0.05
    ) -> None:
        """A distractor: an ellipsoid without a label.

        Example:
            >>> canvas.blob((10, 25, 60), (9, 8, 400), 0.8, texture=0.2)  # doctest: +SKIP
        """
        box, level = self.ellipsoid(center, radii, turn)
        self.paint(box, level < 1, brightness, texture=texture)


def smooth(rng: np.random.Generator, shape: tuple[int, ...], *, nodes: int) -> np.ndarray:
    """A smooth random field of deviation about 1: cubic through `nodes` random values per axis."""
    field = rng.standard_normal((nodes,) * len(shape)).astype(np.float32)
    for axis, n in enumerate(shape):
        rows = make_interp_spline(np.linspace(0, 1, nodes), np.eye(nodes), k=3)(np.linspace(0, 1, n)).astype(np.float32)
        field = np.moveaxis(np.tensordot(rows, field, axes=(1, axis)), 0, axis)
    return field


def rotation(degrees: Point) -> np.ndarray:
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
