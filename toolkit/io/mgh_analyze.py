"""MGH and MGZ (FreeSurfer), and Analyze 7.5 pairs, through nibabel: the header is judged before the voxels are read."""

import gzip
import os
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.mghformat import MGHHeader

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.nifti import NIBABEL_ERRORS, channel_decision
from attunet.io.nifti_header import read_geometry
from attunet.io.reading import (
    MAX_DEFLATE_RATIO,
    ReadOptions,
    check_real_numbers,
    check_voxels,
    checked_affine,
    quiet_nibabel,
)
from attunet.io.refusal import refusal
from attunet.volumes.volume import Volume

MGH_SUFFIXES = (".mgz", ".mgh")
ANALYZE_SUFFIXES = (".hdr",)
MGH_HEADER_BYTES = 284
ANALYZE_HEADER_BYTES = 348


def read_mgh(path: Path, options: ReadOptions) -> Volume:
    """Reads MGH, plain or gzipped (MGZ). Arguments, result and errors are as for `read_nifti`."""
    packed = path.name.lower().endswith("z")
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(MGH_HEADER_BYTES)
        with quiet_nibabel():
            header = nib.freesurfer.MGHImage.header_class(start)
        holder, ratio = path, MAX_DEFLATE_RATIO if packed else 1
    except NIBABEL_ERRORS as error:
        raise refusal(path, "MGH", error) from None
    return replace(_read(path, header, holder, ratio, options), is_oriented=bool(header["goodRASFlag"]))


def read_analyze(path: Path, options: ReadOptions) -> Volume:
    """Reads an Analyze 7.5 or NIfTI pair, `X.hdr` with `X.img` beside it.
    Arguments, result and errors are as for `read_nifti`.

    Analyze has no orientation; nibabel's reading is taken: the first axis runs to the patient's left. SPM's matrix
    `X.mat` beside them is not read.
    """
    voxels = next(
        (p for p in (path.with_suffix(".img"), path.with_suffix(".IMG")) if p.is_file() and not p.is_symlink()), None
    )
    if voxels is None:
        raise InputError(
            f"{path}: its voxels must lie beside it in {path.with_suffix('.img').name}, which is not there"
        )
    try:
        with path.open("rb") as file:
            start = file.read(ANALYZE_HEADER_BYTES)
        is_nifti = start[344:348] == b"ni1\0"
        with quiet_nibabel():
            header = nib.nifti1.Nifti1PairHeader(start) if is_nifti else nib.Spm2AnalyzeImage.header_class(start)
    except NIBABEL_ERRORS as error:
        raise refusal(path, "Analyze", error) from None
    volume = _read(path, header, voxels, 1, options)
    if is_nifti:
        try:
            geometry = read_geometry(header, start, options.choices)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        affine, is_oriented, decisions = checked_affine(path, geometry.affine), geometry.is_oriented, geometry.decisions
    else:
        affine, is_oriented = volume.affine, False
        has_matrix = os.path.lexists(path.with_suffix(".mat"))
        decisions = (
            Decision(
                "analyze-orientation",
                "Analyze states no orientation: its first axis is taken to run to the left"
                + ("; SPM's matrix in the .mat file beside it is not read" if has_matrix else ""),
            ),
        )
    return replace(volume, affine=affine, is_oriented=is_oriented, decisions=(*decisions, *volume.decisions))


def _read(path: Path, header: MGHHeader | nib.AnalyzeHeader, holder: Path, ratio: int, options: ReadOptions) -> Volume:
    form = "MGH" if path.name.lower().endswith(MGH_SUFFIXES) else "Analyze"
    try:
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        if len(shape) < 2 or min(shape) < 1 or any(n != 1 for n in shape[3 if options.labels else 4 :]):
            raise InputError(f"{path}: must be a 3D {'mask' if options.labels else 'image'}, got the shape {shape}")
        check_real_numbers(path, dtype)
        check_voxels(holder, int(np.prod(shape, dtype=object)), dtype.itemsize, ratio=ratio)
        with quiet_nibabel(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            data, affine = _voxels_and_affine(path, header, holder)
    except InputError:
        raise
    except NIBABEL_ERRORS as error:
        raise refusal(path, form, error) from None
    if data.dtype.kind == "f":
        data = data.astype(np.float32)
    data = np.asarray(data, dtype=data.dtype.newbyteorder("=")).reshape((*shape, 1, 1)[:4])
    suffix = ".mgz" if path.name.lower().endswith(MGH_SUFFIXES) else ".hdr"
    return Volume(
        np.moveaxis(data, 3, 0), checked_affine(path, affine), header=suffix, decisions=channel_decision(data.shape[3])
    )


def _voxels_and_affine(
    path: Path, header: MGHHeader | nib.AnalyzeHeader, holder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Of an Analyze pair from its two files alone: nibabel's own reading would open a third, `X.mat`, too."""
    if isinstance(header, MGHHeader):
        image = nib.load(path)
        return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
    voxels = ArrayProxy(holder, header, mmap=False)
    return np.asanyarray(voxels), np.asarray(header.get_best_affine(), dtype=np.float64)


def write_mgh(path: Path, values: np.ndarray, like: Volume) -> None:
    """Writes a label map `(X, Y, Z)` on `like`'s grid as MGH or MGZ, which hold int32."""
    nib.save(nib.freesurfer.MGHImage(values.astype(np.int32), like.affine), path)
