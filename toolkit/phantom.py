"""Generated abdominal MR cases with known labels: for the demo, for tests, and for trying the toolkit without patients' data.

Anatomy is drawn from implicit surfaces in a body frame in mm (x to the patient's left, y to anterior, z to superior), bent by a smooth
deformation, and sampled on the case's own, sometimes oblique, grid. Brightness overlaps between organs and varies by case; bowel, stomach,
vessels and muscles are as bright as organs. So a network has to learn both the position and the appearance of an organ.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial.transform import Rotation

from attunet.errors import InputError

logger = logging.getLogger(__name__)

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4
BEND_MM, MAX_BEND_MM = 5.0, 14.0
BODY_POWER = 2.4  # between an ellipse and a box, as a torso is
Point = Sequence[float] | np.ndarray
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A generated case.

    Args:
        image: int16 `(X, Y, Z)`.
        labels: uint8 `(X, Y, Z)`, values of `attunet.classes.CHAOS_MR`.
        affine: `(4, 4)`, voxel index to mm in RAS+; the axes run to left, anterior and superior.
    """

    image: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


def write_phantom(out: Path, *, cases: int, seed: int = 0, reduce: int = 1) -> None:
    """Write pairs `NN-T2SPIR-src.nii.gz`, `NN-T2SPIR-mask.nii.gz`, the same bytes each time; the folder is renamed when it is whole.

    Args:
        out: a new or an empty folder.
        cases: number of pairs.
        seed: of the anatomy.
        reduce: divides the pixels in plane and multiplies their size, for quick tests.

    Raises:
        InputError: `out` holds anything, or `cases` is below 1.
    """
    if cases < 1:
        raise InputError(f"phantom: the number of cases must be at least 1, got {cases}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: must be a new or an empty folder")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for index in range(cases):
        case = generate_case(seed, index, reduce=reduce)
        for array, name in ((case.image, "src"), (case.labels, "mask")):
            image = nib.Nifti1Image(array, case.affine)
            image.header.set_xyzt_units("mm")
            image.set_sform(case.affine, code=1)
            image.set_qform(case.affine, code=1)
            nib.save(image, partial / f"{index + 1:02d}-T2SPIR-{name}.nii.gz")
        logger.info(f"{index + 1:02d}-T2SPIR: {' x '.join(map(str, case.image.shape))} voxels")
    os.replace(partial, out)


def generate_case(seed: int, index: int, *, reduce: int = 1) -> PhantomCase:
    """Case number `index` of the series `seed`, which depends on these arguments alone."""
    rng = np.random.default_rng([seed, index])
    canvas = Canvas.blank(rng, reduce)
    body = Body.random(rng)
    cavity = _paint_trunk(canvas, body, rng)
    _paint_distractors(canvas, body, rng)
    _paint_organs(canvas, body, cavity, rng)
    return PhantomCase(_acquire(canvas, rng), canvas.labels, canvas.affine)


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
    """The grid of one case. place: `(3, X, Y, Z)` body coordinates in mm of each voxel; image: brightness, about 0 to 1."""

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
        oblique = _rotation(rng.uniform(-7, 7, 3)) if rng.random() < 0.3 else np.eye(3)
        grid = np.eye(4)  # voxels to mm, left-anterior-superior, around the middle of the trunk
        grid[:3, :3] = oblique @ np.diag([spacing, spacing, between])
        grid[:3, 3] = rng.uniform(-12, 12, 3) - grid[:3, :3] @ ((np.array(shape) - 1) / 2)
        affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ grid
        affine[:3, 3] += rng.uniform(-30, 30, 3)
        lying = np.eye(4)
        lying[:3, :3] = _rotation(rng.uniform(-1, 1, 3) * (3, 3, 6))  # nobody lies quite straight
        to_body = (lying @ grid).astype(np.float32)
        x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
        place = np.empty((3, *shape), np.float32)
        for axis, row in enumerate(to_body[:3]):
            np.clip(_smooth(rng, shape, nodes=6) * np.float32(BEND_MM), -MAX_BEND_MM, MAX_BEND_MM, out=place[axis])
            place[axis] += row[0] * x + row[1] * y + row[2] * z + row[3]
        grain = gaussian_filter(rng.standard_normal(shape, np.float32), (3 / spacing, 3 / spacing, 0.3), truncate=2.5)
        grain /= grain.std()
        return cls(place, np.zeros(shape, np.float32), np.zeros(shape, np.uint8), affine, grain, np.linalg.inv(lying @ grid))

    def ellipsoid(self, center: Point, radii: Point, turn: np.ndarray | None = None) -> tuple[Box, np.ndarray]:
        """A box of voxels around an ellipsoid (radii in mm, axes turned by `turn`), and in it the level: below 1 inside."""
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
        self.image[box][inside] = np.float32(brightness) * (1 + np.float32(texture) * self.grain[box][inside])
        self.labels[box][inside] = label

    def blob(self, center: Point, radii: Point, brightness: float, *, turn: np.ndarray | None = None, texture: float = 0.05) -> None:
        """A distractor: an ellipsoid without a label."""
        box, level = self.ellipsoid(center, radii, turn)
        self.paint(box, level < 1, brightness, texture=texture)


def _cross_section(canvas: Canvas, body: Body, shrink: float) -> np.ndarray:
    """Level of the trunk's outline, shrunk by some mm: below 1 inside."""
    x = np.abs(canvas.place[0]) / np.float32(body.half_width - shrink)
    y = np.abs(canvas.place[1]) / np.float32(body.half_depth - shrink)
    return x**BODY_POWER + y**BODY_POWER


def _paint_trunk(canvas: Canvas, body: Body, rng: np.random.Generator) -> np.ndarray:
    """Skin, fat, muscle wall, spine, lungs and heart. Returns the part of the grid that abdominal organs may fill."""
    everywhere = (slice(None),) * 3
    muscle = rng.uniform(0.12, 0.3)
    canvas.paint(everywhere, _cross_section(canvas, body, 0) < 1, rng.uniform(0.15, 0.3), texture=0.1)  # skin
    canvas.paint(everywhere, _cross_section(canvas, body, 3) < 1, rng.uniform(0.04, 0.16), texture=0.2)  # suppressed fat
    canvas.paint(everywhere, _cross_section(canvas, body, body.fat) < 1, muscle, texture=0.15)
    section = _cross_section(canvas, body, body.fat + body.wall)
    cavity = section < 1
    canvas.paint(everywhere, cavity, rng.uniform(0.05, 0.2), texture=0.35)
    for side in (-1, 1):
        canvas.blob(body.at(side * 0.2, -0.85, 0), (34, 22, 400), muscle * rng.uniform(0.8, 1.2), texture=0.2)
        canvas.blob(body.at(side * 0.27, -0.5, -110), (24, 22, 110), muscle * rng.uniform(0.8, 1.3), texture=0.2)  # psoas
    height = canvas.place[2]
    box, level = canvas.ellipsoid(body.at(0, -0.52, 0), (24, 20, 400))
    canvas.paint(box, level < 1, rng.uniform(0.15, 0.35), texture=0.15)
    disc = (level < 1) & (np.mod(height[box] + rng.uniform(0, 32), 32) < 8)
    canvas.paint(box, disc, rng.uniform(0.2, 0.7))
    canvas.blob(body.at(0, -0.86, 0), (9, 8, 400), rng.uniform(0.6, 1.1))  # cerebrospinal fluid
    lung = cavity & (height > body.diaphragm - 45 * section)
    canvas.paint(everywhere, lung, 0.03, texture=0.5)
    canvas.blob((10, 25, body.diaphragm + 25), (60, 48, 40), rng.uniform(0.15, 0.45), texture=0.6)  # heart
    return cavity & (height < body.diaphragm - 4 - 45 * section)


def _paint_distractors(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Stomach, colon, loops of bowel: as bright as organs, textured, never labelled."""
    for _ in range(int(rng.integers(40, 70))):
        place = body.at(rng.uniform(-0.75, 0.75), rng.uniform(-0.15, 0.8), rng.uniform(-130, 25))
        radii = rng.uniform(9, 24, 3)
        canvas.blob(place, radii, rng.uniform(0.15, 1.1), turn=_rotation(rng.uniform(-60, 60, 3)), texture=rng.uniform(0.05, 0.4))
    for side in (-1, 1):  # colon, beside and below the kidneys, sometimes as bright
        place = body.at(side * rng.uniform(0.66, 0.78), rng.uniform(-0.25, 0.15), rng.uniform(-95, -65))
        canvas.blob(place, (rng.uniform(16, 24), rng.uniform(18, 26), rng.uniform(45, 70)), rng.uniform(0.2, 1.0), texture=0.3)
    stomach = body.at(rng.uniform(0.3, 0.45), rng.uniform(0.2, 0.4), rng.uniform(25, 50))
    turn = _rotation((rng.uniform(-20, 20), rng.uniform(-20, 40), rng.uniform(-30, 30)))
    canvas.blob(stomach, (rng.uniform(34, 52), rng.uniform(28, 42), rng.uniform(38, 55)), rng.uniform(0.2, 1.1), turn=turn, texture=0.3)


def _paint_organs(canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator) -> None:
    _paint_spleen(canvas, body, cavity, rng)
    _paint_liver(canvas, body, cavity, rng)
    for label, side in ((RIGHT_KIDNEY, -1), (LEFT_KIDNEY, 1)):
        _paint_kidney(canvas, body, cavity, rng, label=label, side=side)
    spine = body.at(0, -0.52, 0)
    for x, y, radius in ((16, 30, 9), (-16, 30, 11)):  # aorta and inferior vena cava, before the spine, dark or bright
        box, level = canvas.ellipsoid(spine + np.array([x, y, 0]), (radius, radius, 400))
        canvas.paint(box, level < 1, rng.uniform(0.1, 1.0))


def _paint_spleen(canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator) -> None:
    """A crescent behind the stomach, on the left."""
    size = rng.uniform(0.92, 1.3)
    place = body.at(rng.uniform(0.72, 0.82), rng.uniform(-0.4, -0.2), rng.uniform(20, 45))
    turn = _rotation((rng.uniform(-15, 15), rng.uniform(-10, 10), rng.uniform(10, 35)))
    hollow_box, hollow = canvas.ellipsoid(place - turn @ (size * 30, 0, 0), (size * 24, size * 44, size * 60), turn)
    free = cavity.copy()
    free[hollow_box] &= hollow > 1
    box, level = canvas.ellipsoid(place, (size * 27, size * 52, size * rng.uniform(42, 56)), turn)
    canvas.paint(box, (level < 1) & free[box], rng.uniform(0.42, 0.85), label=SPLEEN, texture=0.06)


def _paint_liver(canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator) -> None:
    """A right lobe that tapers downwards along the flank, a left lobe before the stomach, bright vessels, a gall bladder."""
    brightness = rng.uniform(0.22, 0.55)
    size, width, depth = rng.uniform(0.88, 1.08), body.half_width, body.half_depth
    base = body.at(-0.5, rng.uniform(-0.02, 0.1), rng.uniform(15, 35))
    slant = np.eye(3)
    slant[0, 2] = rng.uniform(0.12, 0.3)  # medial above, lateral below
    lobes = [
        canvas.ellipsoid(base, (size * 0.56 * width, size * 0.78 * depth, size * rng.uniform(74, 95)), np.linalg.inv(slant).T),
        canvas.ellipsoid(
            body.at(rng.uniform(-0.05, 0.12), rng.uniform(0.4, 0.55), rng.uniform(35, 55)),
            (size * 0.48 * width, size * 0.36 * depth, size * rng.uniform(26, 40)),
            _rotation((0, rng.uniform(-15, 10), rng.uniform(-15, 15))),
        ),
    ]
    back_box, back = canvas.ellipsoid(body.at(0, -0.6, 0), (48, 62, 400))
    free = cavity & (canvas.labels == 0)
    free[back_box] &= back > 1
    for box, level in lobes:
        canvas.paint(box, (level < 1) & free[box], brightness, label=LIVER, texture=0.07)
    box, _ = lobes[0]
    strands = np.abs(canvas.grain[box]) < rng.uniform(0.04, 0.12)  # zero crossings of smooth noise branch as vessels do
    liver = canvas.labels[box] == LIVER
    canvas.image[box][strands & liver] *= rng.uniform(1.3, 2.2)
    canvas.blob(body.at(rng.uniform(-0.4, -0.25), rng.uniform(0.3, 0.5), rng.uniform(-25, 5)), (13, 15, 24), rng.uniform(0.5, 1.2))


def _paint_kidney(canvas: Canvas, body: Body, cavity: np.ndarray, rng: np.random.Generator, *, label: int, side: int) -> None:
    """side: -1 for the patient's right, 1 for the left. Bright cortex, darker pyramids, a hilum that opens to the middle."""
    place = body.at(side * rng.uniform(0.4, 0.52), rng.uniform(-0.56, -0.4), rng.uniform(-50, -15))
    size = rng.uniform(0.88, 1.12)
    turn = _rotation((rng.uniform(-15, 5), side * rng.uniform(0, 18), side * rng.uniform(10, 45)))
    box, level = canvas.ellipsoid(place, (size * 28, size * 26, size * rng.uniform(50, 60)), turn)
    brightness = rng.uniform(0.45, 1.0)
    canvas.paint(box, (level < rng.uniform(1.15, 1.5)) & cavity[box], rng.uniform(0.05, 0.15), texture=0.3)  # the fat around it
    inside = (level < 1) & cavity[box]
    canvas.paint(box, inside, brightness, label=label, texture=0.06)
    pyramids = inside & (level < 0.55) & (canvas.grain[box] > 0.3)
    canvas.image[box][pyramids] *= rng.uniform(0.55, 0.9)
    hilum = place - turn @ (side * size * 24.0, 0, 0)
    canvas.blob(hilum, (size * 13, size * 8, size * 15), rng.uniform(0.1, 0.6), turn=turn)


def _acquire(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Blur, coil sensitivity, signal loss towards the ends of the slab, Rician noise, the scanner's arbitrary scale: int16."""
    shape = canvas.image.shape
    image = gaussian_filter1d(gaussian_filter1d(canvas.image, 0.6, axis=0, truncate=3), 0.6, axis=1, truncate=3)
    image *= np.exp(_smooth(rng, shape, nodes=4) * np.float32(rng.uniform(0.1, 0.25)))
    along = np.linspace(-1, 1, shape[2], dtype=np.float32)
    image *= 1 - np.float32(rng.uniform(0.1, 0.45)) * np.abs(along) ** 4
    noise = np.float32(rng.uniform(0.008, 0.03))
    image += noise * rng.standard_normal(shape, np.float32)
    image = np.hypot(image, noise * rng.standard_normal(shape, np.float32))
    return np.round(image * np.float32(rng.uniform(600, 1300))).astype(np.int16)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], *, nodes: int) -> np.ndarray:
    """A smooth random field of deviation about 1: cubic through `nodes` random values per axis."""
    field = rng.standard_normal((nodes,) * len(shape)).astype(np.float32)
    for axis, n in enumerate(shape):
        rows = make_interp_spline(np.linspace(0, 1, nodes), np.eye(nodes), k=3)(np.linspace(0, 1, n)).astype(np.float32)
        field = np.moveaxis(np.tensordot(rows, field, axes=(1, axis)), 0, axis)
    return field


def _rotation(degrees: Point) -> np.ndarray:
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
