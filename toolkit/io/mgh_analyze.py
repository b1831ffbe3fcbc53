"""MGH and MGZ (FreeSurfer), and Analyze 7.5 pairs, through nibabel: the header is judged before the voxels are read."""

import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.gzip_file import is_gzipped, open_inflated
from attunet.io.nifti import channel_decision, nibabel_reads, read_voxels
from attunet.io.nifti_header import read_geometry
from attunet.io.reading import MAX_DEFLATE_RATIO, ReadOptions, check_real_numbers, check_voxels, checked_affine, native
from attunet.volumes.volume import Volume

MGH_SUFFIXES = (".mgz", ".mgh")
ANALYZE_SUFFIXES = (".hdr",)
MGH_HEADER_BYTES = 284
HAS_DIRECTION, NO_DIRECTION = slice(28, 30), b"\0\0"  # the place of MGH's goodRASFlag, and its value without one
ANALYZE_HEADER_BYTES = 348


def read_mgh(path: Path, options: ReadOptions) -> Volume:
    """Reads MGH, plain or gzipped (MGZ). Arguments, result and errors are as for `read_nifti`."""
    with nibabel_reads(path, "MGH"):
        header, start = mgh_header(path)
        volume = _read(path, header, path, MAX_DEFLATE_RATIO if is_gzipped(path) else 1, options)
    if float(header["delta"].min()) <= 0:
        raise InputError(f"{path}: voxel sizes must be above 0, the header says {header['delta'].tolist()}")
    if start[HAS_DIRECTION] != NO_DIRECTION:
        return replace(volume, header=".mgz")
    reading = "the header says that its direction is not valid: voxels of 1 mm in FreeSurfer's coronal slices are taken"
    decisions = (Decision("mgh-orientation", reading), *volume.decisions)
    return replace(volume, header=".mgz", is_oriented=False, decisions=decisions)


def mgh_header(path: Path) -> tuple[MGHHeader, bytes]:
    """The header alone, and its bytes, which nibabel repairs; raises errors of nibabel and gzip."""
    with open_inflated(path) as file:
        start = file.read(MGH_HEADER_BYTES)
    return nib.freesurfer.MGHImage.header_class(start), start


def analyze_header(path: Path) -> tuple[nib.AnalyzeHeader, bytes]:
    """The header of a pair, of Analyze or NIfTI, and its bytes; raises errors of nibabel."""
    with path.open("rb") as file:
        start = file.read(ANALYZE_HEADER_BYTES)
    if start[344:348] == b"ni1\0":
        return nib.nifti1.Nifti1PairHeader(start), start
    header = nib.Spm2AnalyzeImage.header_class(start)
    header["cal_max"] = header["cal_min"] = 0  # ranges of values, of which nibabel makes a scale where SPM's is missing
    return header, start


def analyze_voxels(path: Path) -> Path:
    """The file beside a header that holds the voxels; raises InputError where there is none."""
    beside = (path.with_suffix(".img"), path.with_suffix(".IMG"))
    voxels = next((p for p in beside if p.is_file() and not p.is_symlink()), None)
    if voxels is None:
        raise InputError(f"{path}: its voxels must lie beside it in {beside[0].name}, which is not there")
    return voxels


def read_analyze(path: Path, options: ReadOptions) -> Volume:
    """Reads an Analyze 7.5 or NIfTI pair, `X.hdr` with `X.img` beside it; otherwise as `read_nifti`.

    Analyze has no orientation; nibabel's reading is taken: the first axis runs to the patient's left. SPM's scale and
    offset in the header are applied, the ranges of values there (`cal_max`, `glmax`) are not; SPM's matrix `X.mat`
    beside the pair is not read.
    """
    voxels = analyze_voxels(path)
    with nibabel_reads(path, "Analyze"):
        header, start = analyze_header(path)
        is_nifti = isinstance(header, nib.nifti1.Nifti1PairHeader)
        volume = replace(_read(path, header, voxels, 1, options), header=".hdr")
    if is_nifti:
        geometry = read_geometry(path, header, start, options.choices)
        decisions = (*geometry.decisions, *volume.decisions)
        return replace(volume, affine=geometry.affine, is_oriented=geometry.is_oriented, decisions=decisions)
    reading = "Analyze states no orientation: its first axis is taken to run to the left"
    slope, intercept = (1, 0) if header.get_slope_inter()[0] is None else header.get_slope_inter()
    if (slope, intercept) != (1, 0):
        reading += f"; its voxels are scaled by SPM's figures in the header, value * {slope:g} + {intercept:g}"
    if os.path.lexists(path.with_suffix(".mat")):
        reading += "; SPM's matrix in the .mat file beside it is not read"
    return replace(volume, is_oriented=False, decisions=(Decision("analyze-orientation", reading), *volume.decisions))


def _read(path: Path, header: MGHHeader | nib.AnalyzeHeader, holder: Path, ratio: int, options: ReadOptions) -> Volume:
    """The volume of a header whose voxels `holder` holds, compressed by at most `ratio`."""
    shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
    if len(shape) < 2 or min(shape) < 1 or any(n != 1 for n in shape[3 if options.labels else 4 :]):
        raise InputError(f"{path}: must be a 3D {'mask' if options.labels else 'image'}, got the shape {shape}")
    check_real_numbers(path, dtype)
    check_voxels(holder, int(np.prod(shape, dtype=object)), dtype.itemsize, ratio=ratio)
    # The two files of an Analyze pair alone: nibabel's own reading would open a third, `X.mat`, too
    affine = header.get_affine() if isinstance(header, MGHHeader) else header.get_best_affine()
    with open_inflated(holder) as file:
        data = native(read_voxels(file, header)).reshape((*shape, 1, 1)[:4])
    affine = checked_affine(path, np.asarray(affine, dtype=np.float64))
    return Volume(np.moveaxis(data, 3, 0), affine, decisions=channel_decision(data.shape[3]))


def write_mgh(path: Path, values: np.ndarray, like: Volume) -> None:
    """Writes a label map `(X, Y, Z)` on `like`'s grid as MGH or MGZ, which hold int32. Raises InputError for others."""
    if max(-int(values.min()) - 1, int(values.max())) >= 2**31:
        got = f"{values.min()} to {values.max()}"
        raise InputError(f"{path}: MGH holds label values of 32 bits, got {got}; write .nii.gz")
    nib.save(nib.freesurfer.MGHImage(values.astype(np.int32), like.affine), path)
