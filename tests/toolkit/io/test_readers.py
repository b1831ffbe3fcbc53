import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.readers import read_mask, read_volume
from attunet.io.writers import write_labels

AFFINE = np.array([[-1.5, 0.1, 0, 90], [0.1, 1.5, 0, -80], [0, 0, 7, -20], [0, 0, 0, 1.0]])
DATA = np.random.default_rng(0).integers(-50, 2000, (9, 8, 5)).astype(np.int16)


def save(path: Path, data: np.ndarray = DATA, affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(data, affine), path)
    return path


def edited(path: Path, **fields: object) -> Path:
    """The file with header fields overwritten, whatever sense they make."""
    raw = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header.structarr[name] = value
    path.write_bytes(header.binaryblock + raw[348:])
    return path


@pytest.mark.parametrize("disabled", [True, False])
def test_the_log_of_nibabel_stays_as_its_user_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    """A program that configures its log switches those of other libraries off."""
    monkeypatch.setattr(nib.imageglobals.logger, "disabled", disabled)
    read_volume(save(tmp_path / "a.nii"))
    assert nib.imageglobals.logger.disabled == disabled


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.uint16, ">i2", ">f4"])
def test_a_volume_is_what_nibabel_reads(tmp_path: Path, name: str, dtype: str) -> None:
    data = np.abs(DATA % 200).astype(dtype)
    volume = read_volume(save(tmp_path / name, data))
    np.testing.assert_array_equal(volume.data, data[None])
    assert volume.data.dtype.isnative
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.spacing == pytest.approx((1.50333, 1.50333, 7), abs=1e-4)
    assert volume.unit == "mm"


def test_nifti_2_single_frames_and_flat_images_are_read(tmp_path: Path) -> None:
    assert read_volume(save(tmp_path / "two.nii.gz", kind=nib.Nifti2Image)).shape == (9, 8, 5)
    assert read_volume(save(tmp_path / "frame.nii.gz", DATA[..., None])).data.shape == (1, 9, 8, 5)
    assert read_volume(save(tmp_path / "flat.nii.gz", DATA[..., 0])).data.shape == (1, 9, 8, 1)


def test_the_headers_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(DATA, AFFINE)
    image.header.set_slope_inter(0.5, -1024)
    nib.save(image, tmp_path / "a.nii")
    path = edited(tmp_path / "a.nii", scl_slope=0.5, scl_inter=-1024)
    stored = np.asarray(nib.load(path).dataobj.get_unscaled())
    np.testing.assert_allclose(read_volume(path).data[0], stored * 0.5 - 1024)


def test_what_is_not_a_scan_is_one_line(tmp_path: Path, refused) -> None:
    refused(tmp_path / "absent.nii.gz", "no such file")
    (tmp_path / "text.txt").write_text("hello")
    refused(tmp_path / "text.txt", r"\.txt is not read; the formats are NIfTI, ")
    (tmp_path / "text.nii").write_text("hello" * 100)
    refused(tmp_path / "text.nii", "cannot be read as NIfTI")
    (tmp_path / "folder.nii").mkdir()
    refused(tmp_path / "folder.nii", "the folder has no DICOM files")
    refused(save(tmp_path / "movie.nii.gz", np.zeros((4, 4, 4, 3), np.uint8)), "must have 1 channel, got 3")
    refused(save(tmp_path / "complex.nii.gz", DATA.astype(np.complex64)), "got complex ones: save their magnitude")
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(tmp_path / "rgb.nii.gz", rgb), r"got colours \(R, G, B\): save one grey channel")


def test_what_header_extensions_hold_is_not_looked_at(tmp_path: Path) -> None:
    image = nib.Nifti1Image(DATA, AFFINE)
    for code in (2, 4, 6):  # DICOM, XML, comment
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, b"\x08\x00\x05\x00 Mustermann^Erika" * 40))
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.data[0], DATA)
    write_labels(tmp_path / "out.nii", np.zeros(DATA.shape, np.uint8), CLASSES, volume)
    assert b"Mustermann" not in (tmp_path / "out.nii").read_bytes()


def test_one_wrong_byte_in_a_gzip_is_noticed(tmp_path: Path, refused) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 2000, (20, 20, 20)).astype(np.int16))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    refused(path, "cannot be read as NIfTI")


def test_voxels_that_are_not_finite_are_counted(tmp_path: Path, refused) -> None:
    data = DATA.astype(np.float32)
    data[0, 0, :2] = np.nan, np.inf
    refused(save(tmp_path / "nan.nii.gz", data), "voxels must be finite numbers, 2 of 360")
    refused(save(tmp_path / "large.nii.gz", DATA * 1e300), "voxels must be finite numbers")


def test_an_affine_that_leads_nowhere_is_refused(tmp_path: Path, refused) -> None:
    flat = AFFINE.copy()
    flat[:3, 1] = flat[:3, 0]
    path = save(tmp_path / "flat.nii")
    refused(
        edited(path, srow_x=flat[0], srow_y=flat[1], srow_z=flat[2], sform_code=1, qform_code=0), "must be invertible"
    )
    refused(edited(path, srow_x=[np.nan, 0, 0, 0]), "must be finite")
    refused(
        edited(path, srow_x=[0, 0, 0, 0], srow_y=[0, 0, 0, 0], srow_z=[0, 0, 0, 0]), "must be finite with voxels of"
    )


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(30000, 30000, 30000), (32767, 32767, 1), (-1, 5, 5), (0, 4, 4), (1000, 1000, 900)])
def test_a_header_that_declares_terabytes_asks_for_no_memory(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], refused, little_memory
) -> None:
    path = edited(save(tmp_path / "bomb.nii"), dim=[3, *shape, 1, 1, 1, 1])
    if suffix == ".nii.gz":
        raw = path.read_bytes()
        path = tmp_path / "bomb.nii.gz"
        path.write_bytes(gzip.compress(raw[:452]))
    with little_memory():
        refused(path, "cut short|at most|must be a 3D image|cannot be read")


def test_label_maps_are_whole_numbers(tmp_path: Path, refused) -> None:
    labels = (DATA % 5).astype(np.uint8)
    for name, stored in {"int": labels, "float": labels.astype(np.float64), "big": labels.astype(">i4")}.items():
        mask = read_mask(save(tmp_path / f"{name}.nii.gz", stored))
        found, affine = mask.data[0], mask.affine
        np.testing.assert_array_equal(found, labels)
        assert found.dtype.kind in "iu"
        np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
    refused(save(tmp_path / "half.nii.gz", labels * 0.5), r"label values must be whole numbers, got [01]\.5", read_mask)
    for name, stored in {"nan": np.where(labels, labels, np.nan), "nearly": labels + 0.0004}.items():
        mask = read_mask(save(tmp_path / f"{name}.nii.gz", stored.astype(np.float32)))
        np.testing.assert_array_equal(mask.data[0], labels)
        assert [d.rule for d in mask.decisions] == [{"nan": "nan-labels", "nearly": "rounded-labels"}[name]]
    refused(save(tmp_path / "void.nii.gz", np.full(DATA.shape, np.nan)), "every one is NaN", read_mask)
    atlas = save(tmp_path / "atlas.nii.gz", np.where(labels, 312_782_546.0, 0))
    refused(atlas, r"must be below 16,777,216, .* got 312782560: save the mask as integers", read_mask)
    whole = read_mask(save(tmp_path / "whole.nii.gz", np.where(labels, 312_782_546, 0).astype(np.int32)))
    assert np.unique(whole.data).tolist() == [0, 312_782_546]


CLASSES = Classes(("background", "cyst", "stone"), (0, 7, 300))


@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (1, 0), (0, 0)])
def test_predictions_lie_on_the_inputs_grid_with_its_codes_and_values(tmp_path: Path, codes: tuple[int, int]) -> None:
    path = save(tmp_path / "in.nii.gz")
    image = nib.load(path)
    image.header["sform_code"], image.header["qform_code"] = codes
    image.header.set_xyzt_units("mm", "sec")
    image.header["vox_offset"] = 352  # nibabel forgets it
    raw = image.header.binaryblock
    path = tmp_path / "coded.nii"
    path.write_bytes(raw + bytes(4) + DATA.tobytes(order="F"))
    volume = read_volume(path)
    indices = (DATA % 3).astype(np.uint8)
    write_labels(tmp_path / "out.nii.gz", indices, CLASSES, volume)
    written, given = nib.load(tmp_path / "out.nii.gz"), nib.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.array(CLASSES.values)[indices])
    np.testing.assert_allclose(written.affine, given.affine, atol=1e-6)
    for field in ("sform_code", "qform_code", "xyzt_units"):
        assert written.header[field] == given.header[field]
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_predictions_use_the_smallest_type_and_refuse_other_names(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "in.nii.gz"))
    write_labels(tmp_path / "out.nii", np.ones((9, 8, 5), np.uint8), Classes(("a", "b"), (0, 252)), volume)
    assert nib.load(tmp_path / "out.nii").get_data_dtype() == np.uint8
    with pytest.raises(InputError, match=r"must end in \.nii\.gz"):
        write_labels(tmp_path / "out.png", np.ones((9, 8, 5), np.uint8), CLASSES, volume)
    with pytest.raises(InputError, match="cannot be written"):
        write_labels(tmp_path / "absent" / "out.nii", np.ones((9, 8, 5), np.uint8), CLASSES, volume)


LIMITED = """
import resource, sys
from pathlib import Path
from attunet.errors import TooLittleMemory
from attunet.io.readers import read_mask, read_volume
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
for read in (read_volume, read_mask):
    try:
        read(sys.argv[1])
    except TooLittleMemory as error:
        print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_too_little_memory_is_an_error_with_the_name_of_the_file(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((500, 500, 800))
    header.set_data_dtype(np.uint8)
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"] = 352
    with gzip.open(tmp_path / "large.nii.gz", "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(200):
            file.write(bytes(10**6))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "large.nii.gz"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{tmp_path / 'large.nii.gz'}: there is too little memory to read it\n" * 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("name", ["a", "a.nii.gz", "a.dcm", "a.png", "a.mgz", "a.hdr"])
@pytest.mark.parametrize("read", [read_volume, read_mask])
def test_a_pipe_or_a_device_is_refused_unread(tmp_path: Path, name: str, read, refused) -> None:
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, "must be a file or a folder; reading a pipe or a device might never end", read)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / name).symlink_to("/dev/zero")
    refused(tmp_path / "link" / name, "must be a file or a folder", read)
