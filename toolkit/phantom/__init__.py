"""Generated abdominal MR cases with known labels, to try the toolkit without patients' data.

Anatomy is drawn from implicit surfaces in a body frame in mm (x to the patient's left, y to anterior, z to superior),
bent by a smooth deformation, and sampled on the case's own, sometimes oblique, grid. Brightness overlaps between organs
and varies by case; bowel, stomach, vessels and muscles are as bright as organs. So a network has to learn both the
position and the appearance of an organ.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter1d

from attunet.errors import InputError
from attunet.phantom.anatomy import paint_distractors, paint_organs, paint_trunk
from attunet.phantom.canvas import Body, Canvas, smooth
from attunet.system.atomic_files import name_in_errors
from attunet.system.lock import beside, writing
from attunet.system.outputs import claim_unfinished, remove_mark

logger = logging.getLogger(__name__)

WORK = "phantom"  # in the mark of unfinished cases


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A generated case."""

    image: np.ndarray  # int16 `(X, Y, Z)`
    labels: np.ndarray  # uint8 `(X, Y, Z)`, values of `attunet.classes.CHAOS_MR`
    affine: np.ndarray  # `(4, 4)`, voxel index to mm in RAS+; the axes run to left, anterior and superior


def write_phantom(out: Path, *, cases: int, seed: int = 0, reduce: int = 1) -> None:
    """Write pairs `NN-T2SPIR-src.nii.gz`, `NN-T2SPIR-mask.nii.gz`, the same bytes each time; the folder appears whole.

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
    with writing(out, "generation of cases"):
        _write(out, cases, seed, reduce)


def _write(out: Path, cases: int, seed: int, reduce: int) -> None:
    remove_mark(out, WORK)
    if out.exists() and (not out.is_dir() or any(out.iterdir()) or out.samefile(".")):
        raise InputError(f"{out}: must be a new or an empty folder, and not the current one")
    partial = beside(out, "", ".partial")
    claim_unfinished(partial, WORK)
    for left in partial.glob("*.nii.gz"):
        left.unlink()
    try:
        for index in range(cases):
            name, case = f"{index + 1:02d}-T2SPIR", generate_case(seed, index, reduce=reduce)
            _save(partial / f"{name}-src.nii.gz", case.image, case.affine)
            _save(partial / f"{name}-mask.nii.gz", case.labels, case.affine)
            logger.info(f"{name}: {' x '.join(map(str, case.image.shape))} voxels")
        os.replace(partial, out)
        remove_mark(out, WORK)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # is there after a failure alone


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with name_in_errors(path):
        nib.save(image, path)


def generate_case(seed: int, index: int, *, reduce: int = 1) -> PhantomCase:
    """Case number `index` of the series `seed`, which depends on these arguments alone."""
    rng = np.random.default_rng([seed, index])
    canvas = Canvas.blank(rng, reduce)
    body = Body.random(rng)
    cavity = paint_trunk(canvas, body, rng)
    paint_distractors(canvas, body, rng)
    paint_organs(canvas, body, cavity, rng)
    return PhantomCase(_acquire(canvas, rng), canvas.labels, canvas.affine)


def _acquire(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Blur, coil sensitivity, signal loss towards the ends of the slab, Rician noise, an arbitrary scale: int16."""
    shape = canvas.image.shape
    image = gaussian_filter1d(gaussian_filter1d(canvas.image, 0.6, axis=0, truncate=3), 0.6, axis=1, truncate=3)
    image *= np.exp(smooth(rng, shape, nodes=4) * np.float32(rng.uniform(0.1, 0.25)))
    along = np.linspace(-1, 1, shape[2], dtype=np.float32)
    image *= 1 - np.float32(rng.uniform(0.1, 0.45)) * np.abs(along) ** 4
    noise = np.float32(rng.uniform(0.008, 0.03))
    image += noise * rng.standard_normal(shape, np.float32)
    image = np.hypot(image, noise * rng.standard_normal(shape, np.float32))
    return np.round(image * np.float32(rng.uniform(600, 1300))).astype(np.int16)
