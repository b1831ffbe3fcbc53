"""Geometry of NIfTI headers that are filled in partly, or against each other, and label maps on the same grid."""

import logging
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.nifti_header import image_like
from attunet.io.readers import read_mask, read_volume
from attunet.io.writers import write_labels
from attunet.sources.read_case import MaskOptions, read_labels
from attunet.volumes.training_ranges import check_input
from attunet.volumes.volume import Volume

DATA = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
CLASSES = Classes(("background", "a", "b"), (0, -1, 200))


def scan(
    path: Path,
    *,
    sform: np.ndarray | None = None,
    qform: np.ndarray | None = None,
    zooms: tuple[float, ...] = (1, 1, 1),
    unit: int = 2,
) -> Path:
    """A scan with the forms that are given, and nothing that nibabel would fill in."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(DATA.shape)
    header.set_qform(qform, 1 if qform is not None else 0)
    header.set_sform(sform, 1 if sform is not None else 0)
    header["pixdim"][1:4], header["xyzt_units"] = zooms, unit
    nib.save(nib.Nifti1Image(DATA, None, header), path)
    return path


def with_codes(path: Path, **codes: int) -> Path:
    """The file with fields of its header overwritten, unchecked."""
    offsets = {"qform_code": (252, "<i2"), "sform_code": (254, "<i2"), "xyzt_units": (123, "u1")}
    data = bytearray(path.read_bytes())
    for name, value in codes.items():
        at, kind = offsets[name]
        raw = np.array(value, kind).tobytes()
        data[at : at + len(raw)] = raw
    path.write_bytes(bytes(data))
    return path


def rules(volume: object) -> set[str]:
    return {decision.rule for decision in volume.decisions}  # type: ignore[attr-defined]


AFFINE = np.diag([-0.8, -0.8, 5.0, 1.0])


@pytest.mark.parametrize(
    ("sform", "qform", "named"),
    [
        (np.eye(4), AFFINE, "voxels of 1 × 1 × 1 mm, qform and pixdim of 0.8 × 0.8 × 5 mm"),
        (np.diag([-0.8, -0.8, 4.0, 1.0]), None, "voxels of 0.8 × 0.8 × 4 mm, pixdim of 0.8 × 0.8 × 5 mm"),
        (np.diag([0.8, -0.8, 5.0, 1.0]), AFFINE, "the axes run to RPS by the sform, to LPS by the qform"),
        (AFFINE[[1, 0, 2, 3]], AFFINE, "the axes run to PLS by the sform, to LPS by the qform"),
    ],
)
def test_forms_that_contradict_each_other_are_an_error_that_names_both(
    tmp_path: Path, sform: np.ndarray, qform: np.ndarray | None, named: str, refused
) -> None:
    path = scan(tmp_path / "a.nii", sform=sform, qform=qform, zooms=(0.8, 0.8, 5))
    refused(path, rf"a\.nii: .*{named}; choose one with --read nifti-geometry=sform or nifti-geometry=pixdim")
    chosen = {one: read_volume(path, choices={"nifti-geometry": one}) for one in ("sform", "pixdim")}
    np.testing.assert_allclose(chosen["sform"].affine, sform)
    np.testing.assert_allclose(chosen["pixdim"].spacing, (0.8, 0.8, 5), rtol=1e-6)
    assert all(rules(volume) == {"nifti-geometry"} for volume in chosen.values())


@pytest.mark.parametrize(
    ("sform", "qform", "zooms"),
    [
        (AFFINE, AFFINE, (0.8, 0.8, 5)),
        (AFFINE, None, (0.8, 0.8, 5)),
        (AFFINE, None, (1, 1, 1)),  # pixdim was never filled in
        (AFFINE, None, (0, 0, 0)),
        (np.diag([-0.8004, -0.8, 5.0, 1.0]), AFFINE, (0.8, 0.8, 5)),  # rounded differently
        (None, AFFINE, (0.8, 0.8, 5)),
    ],
)
def test_forms_that_agree_are_read_without_a_word(
    tmp_path: Path, sform: np.ndarray | None, qform: np.ndarray | None, zooms: tuple[float, ...]
) -> None:
    volume = read_volume(scan(tmp_path / "a.nii", sform=sform, qform=qform, zooms=zooms))
    assert volume.is_oriented
    assert not volume.decisions
    np.testing.assert_allclose(volume.spacing, (0.8, 0.8, 5), rtol=1e-3)


def test_a_header_without_codes_says_so_and_can_be_read_along_other_axes(tmp_path: Path) -> None:
    path = scan(tmp_path / "a.nii", zooms=(2, 3, 4))
    volume = read_volume(path)
    assert not volume.is_oriented
    assert rules(volume) == {"nifti-orientation"}
    assert nib.aff2axcodes(volume.affine) == tuple("LAS")
    assert volume.spacing == (2, 3, 4)
    for codes in ("RAS", "LPS", "RPI"):
        turned = read_volume(path, choices={"nifti-orientation": codes})
        assert nib.aff2axcodes(turned.affine) == tuple(codes)
        assert turned.spacing == (2, 3, 4)
    (finding,) = check_input(volume, None, "LPS")
    assert (finding.level, finding.rule) == ("warning", "untrained-orientation")
    assert not check_input(volume, None, None), "pictures have no sides"


def test_a_picture_without_codes_has_the_thickness_of_its_header(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((9, 8))
    header["pixdim"][1:4] = (1.6, 1.5, 5)
    nib.save(nib.Nifti1Image(np.ones((9, 8), np.int16), None, header), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.spacing, (1.6, 1.5, 5))
    nib.save(image_like(np.ones((9, 8, 1), np.uint8), volume), tmp_path / "labels.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "labels.nii").affine, volume.affine)


def test_a_qform_that_is_no_number_is_no_other_reading(tmp_path: Path) -> None:
    path = scan(tmp_path / "a.nii", sform=AFFINE, qform=AFFINE, zooms=(0.8, 0.8, 5))
    data = bytearray(path.read_bytes())
    data[256:260] = np.float32(np.nan).tobytes()  # quatern_b
    path.write_bytes(data)
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-5)


def test_lengths_in_other_units_become_mm(tmp_path: Path, refused) -> None:
    metres = np.diag([-0.0008, -0.0008, 0.005, 1])
    volume = read_volume(scan(tmp_path / "m.nii", sform=metres, qform=metres, zooms=(0.0008, 0.0008, 0.005), unit=1))
    np.testing.assert_allclose(volume.spacing, (0.8, 0.8, 5), rtol=1e-5)
    assert rules(volume) == {"nifti-units"}
    micro = read_volume(scan(tmp_path / "u.nii", sform=AFFINE, qform=AFFINE, zooms=(0.8, 0.8, 5), unit=3))
    np.testing.assert_allclose(micro.spacing, (0.0008, 0.0008, 0.005), rtol=1e-5)
    wrong = scan(tmp_path / "w.nii", sform=AFFINE, qform=AFFINE, zooms=(0.8, 0.8, 5), unit=1)
    refused(wrong, r"metres, so that voxels of 0\.8 × 0\.8 × 5 would be 1000 times as large .*--read nifti-units=mm")
    np.testing.assert_allclose(read_volume(wrong, choices={"nifti-units": "mm"}).spacing, (0.8, 0.8, 5), rtol=1e-5)
    assert (
        read_volume(scan(tmp_path / "none.nii", sform=AFFINE, qform=AFFINE, zooms=(0.8, 0.8, 5), unit=0)).decisions
        == ()
    )


@pytest.mark.parametrize("oriented", ["image", "mask"])
def test_a_mask_that_lost_its_codes_lies_on_its_image(tmp_path: Path, oriented: str) -> None:
    """The axes of both files are stored alike, so the values stay where they are."""
    turned = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -3], [0, 0, 4, 1], [0, 0, 0, 1]])
    paths = {name: tmp_path / f"{name}.nii" for name in ("image", "mask")}
    for name, path in paths.items():
        scan(path, sform=turned if name == oriented else None, zooms=(1.5, 2, 4))
    image = read_volume(paths["image"])
    mask = read_labels([paths["mask"]], image, paths["image"], MaskOptions())
    np.testing.assert_array_equal(mask.values, DATA)
    assert mask.grid_distance == 0
    assert [decision.rule for decision in mask.decisions if decision.rule == "mask-geometry"]


def test_a_strongly_tilted_scan_is_told(tmp_path: Path) -> None:
    for degrees, told in ((10, False), (44, True)):
        turn = np.radians(degrees)
        affine = np.eye(4)
        affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        volume = read_volume(scan(tmp_path / f"{degrees}.nii", sform=affine, qform=affine))
        assert ("oblique" in rules(volume)) == told


@pytest.mark.parametrize("unit", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("codes", [{}, {"qform_code": 128}, {"sform_code": 9}, {"qform_code": -3, "sform_code": 0}])
def test_a_label_map_has_the_header_of_its_scan_whatever_its_codes(
    tmp_path: Path,
    unit: int,
    codes: dict[str, int],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = with_codes(
        scan(tmp_path / "a.nii", sform=AFFINE, qform=AFFINE, zooms=(0.8, 0.8, 5)), xyzt_units=unit, **codes
    )
    with caplog.at_level(logging.DEBUG):
        volume = read_volume(path, choices={"nifti-units": "convert"})
        write_labels(tmp_path / "out.nii.gz", DATA % 3, CLASSES, volume)
    assert capfd.readouterr().err == ""
    assert ("nifti-codes" in rules(volume)) == bool(codes or unit == 7)
    before, after = nib.load(path).header, nib.load(tmp_path / "out.nii.gz").header
    for name in ("qform_code", "sform_code", "srow_x", "srow_z", "quatern_b", "qoffset_y", "pixdim"):
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert int(after["xyzt_units"]) == (unit if unit in (0, 1, 2, 3) else 0)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "out.nii.gz", choices={"nifti-units": "convert"}).data[0], np.array([0, -1, 200])[DATA % 3]
    )


@pytest.mark.parametrize(("unit", "code"), [("mm", 2), ("pixel", 0)])
def test_a_label_map_of_another_format_says_its_unit(tmp_path: Path, unit: Literal["mm", "pixel"], code: int) -> None:
    volume = Volume(DATA[None], AFFINE, unit)
    write_labels(tmp_path / "out.nii.gz", DATA % 3, CLASSES, volume)
    header = nib.load(tmp_path / "out.nii.gz").header
    assert [int(header[name]) for name in ("xyzt_units", "sform_code", "qform_code")] == [code, 2, 0]


def test_an_axis_too_long_for_nifti_1_is_written_as_nifti_2(tmp_path: Path) -> None:
    long = nib.Nifti2Image(np.zeros((1, 1, 40000), np.uint8), np.diag([1.0, 2, 3, 1]))
    nib.save(long, tmp_path / "long.nii")
    volume = read_volume(tmp_path / "long.nii")
    write_labels(tmp_path / "out.nii", np.ones(volume.shape, np.uint8), CLASSES, volume)
    written = nib.load(tmp_path / "out.nii")
    assert written.shape == (1, 1, 40000)
    np.testing.assert_array_equal(written.affine, long.affine)


@pytest.mark.parametrize(
    "values", [(0, 200), (0, 200, -1), (0, -200, 70000), (-1, 255), (0, 2**31 - 1), (-(2**31), 2**31 - 1)]
)
def test_label_values_come_back_exactly(tmp_path: Path, values: tuple[int, ...]) -> None:
    classes = Classes(("background", "a", "b")[: len(values)], values)
    volume = read_volume(scan(tmp_path / "a.nii", sform=AFFINE, qform=AFFINE, zooms=(0.8, 0.8, 5)))
    for ending in (".nii", ".nii.gz"):
        write_labels(tmp_path / f"out{ending}", DATA % len(values), classes, volume)
        np.testing.assert_array_equal(
            read_mask(tmp_path / f"out{ending}").data[0], np.array(values)[DATA % len(values)]
        )


@pytest.mark.parametrize("offset", [0.0, 100.0, 351.0, -1.0])
def test_voxels_begin_behind_the_header(tmp_path: Path, offset: float) -> None:
    path = scan(tmp_path / "a.nii", sform=AFFINE, qform=AFFINE, zooms=(0.8, 0.8, 5))
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(offset).tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii: (voxels must start behind the header|cannot be read as NIfTI)"):
        read_volume(path)


@pytest.mark.parametrize(("dtype", "value"), [(np.int64, -(2**62)), (np.int64, 2**40), (np.uint32, 2**32 - 1)])
def test_label_values_fit_32_bits(tmp_path: Path, dtype: type, value: int) -> None:
    labels = np.zeros((4, 4, 4), dtype)
    labels[1:3] = value
    nib.save(nib.Nifti1Image(labels, AFFINE, dtype=dtype), tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"a\.nii: label values must fit 32 bits"):
        read_mask(tmp_path / "a.nii")
