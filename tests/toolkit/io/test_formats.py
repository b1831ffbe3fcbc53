"""Every format on every grid gives the same slices, and label maps come back where they belong."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.io.readers import FORMATS, read_mask, read_volume
from attunet.io.writers import WRITERS, suffixes_for, write_labels
from attunet.preparation.prepare import prepare
from attunet.volumes.geometry import orient, orientation_transform
from attunet.volumes.predict import predict_prepared
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("pydicom")

RNG = np.random.default_rng(0)
SHAPE = (10, 9, 6)
LPS = np.diag([-1.5, -1.2, 5.0, 1.0])
LPS[:3, 3] = (40, 30, -20)
IMAGE = RNG.integers(0, 500, SHAPE).astype(np.int16)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[2:5, 1:6, 1:4], LABELS[6:9, 4:8, 2:5] = 1, 2
ORIENTATIONS = ("LPS", "RAS", "LAS", "RPS", "LPI", "PLS", "SLP", "ASR", "IRA", "PIR", "AIL", "RSA")
KINDS = ("nii.gz", "dicom", "nrrd", "mha")
SPEC = PreprocessSpec("LPS", 2, None, (32, 32))
CLASSES = Classes(("background", "a", "b"), (0, 200, -1))


def oriented(array: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The array of the LPS grid with its axes along `codes`, and its affine then."""
    transform = orientation_transform(LPS, codes)
    affine = LPS @ nib.orientations.inv_ornt_aff(np.array(transform), SHAPE)
    return np.ascontiguousarray(orient(array, transform)), affine


def save(path: Path, array: np.ndarray, affine: np.ndarray, kind: str, write_series) -> Path:
    """One volume in a format; returns its file or folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "dicom":
        if array.dtype.kind == "f":
            write_series(path, np.rint(array * 2).astype(np.int16), affine, RescaleSlope="0.5", RescaleIntercept="0")
        else:
            write_series(path, array.astype(np.int16), affine)
        return path
    path = path.with_name(f"{path.name}.{kind}")
    if kind == "nii.gz":
        nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)
        return path
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def network(slices: np.ndarray) -> np.ndarray:
    """Classes by intensity and column, so that a flip or a shift shows."""
    columns = np.mgrid[: slices.shape[2], : slices.shape[3]][1] / 16
    return np.stack([0 * slices[:, 0], slices[:, 0] - columns, slices[:, 0] + columns - 2], axis=1)


EXPECTED_SLICES = VolumeSlices(Volume(IMAGE[None], LPS), SPEC)[:]
EXPECTED_LABELS = predict_prepared(network, VolumeSlices(Volume(IMAGE[None], LPS), SPEC))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_slices_and_label_maps_do_not_depend_on_orientation_or_format(
    tmp_path: Path, write_series, kind: str, dtype: type
) -> None:
    for codes in ORIENTATIONS:
        array, affine = oriented(IMAGE.astype(dtype), codes)
        volume = read_volume(save(tmp_path / codes, array, affine, kind, write_series))
        np.testing.assert_array_equal(VolumeSlices(volume, SPEC)[:], EXPECTED_SLICES, err_msg=codes)
        labels = predict_prepared(network, VolumeSlices(volume, SPEC))
        along = orient(labels, orientation_transform(volume.affine, "LPS"))
        np.testing.assert_array_equal(along, EXPECTED_LABELS, err_msg=codes)
        if kind != "dicom":
            np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masks_do_not_depend_on_orientation_or_format(tmp_path: Path, write_series, kind: str, dtype: type) -> None:
    """The image is NIfTI in LPS and the mask of another format, or both are DICOM's and NIfTI's the other way round."""
    for codes in ORIENTATIONS:
        image_codes = "LPS" if kind != "dicom" else codes
        image_kind, mask_kind = ("nii.gz", kind) if kind != "dicom" else ("dicom", "nii.gz")
        image, image_affine = oriented(IMAGE, image_codes)
        mask, mask_affine = oriented(LABELS.astype(dtype), codes if kind != "dicom" else "RAS")
        root = tmp_path / codes
        for number in range(2):
            save(root / f"c{number}/image", image + np.int16(number), image_affine, image_kind, write_series)
            save(root / f"c{number}/label", mask, mask_affine, mask_kind, write_series)
        store = prepare(root, tmp_path / f"{codes}-store", DataConfig(slice_axis=2, spacing_mm=1.2, size=32), folds=2)
        volume, labels = store.read_source("c0")
        assert labels is not None
        np.testing.assert_array_equal(
            orient(labels, orientation_transform(volume.affine, "LPS")), LABELS, err_msg=codes
        )


@pytest.mark.parametrize("suffix", [s for s in WRITERS if s not in (".png", ".tif", ".tiff")])
def test_an_ending_may_have_capitals(tmp_path: Path, suffix: str) -> None:
    indices, like = (IMAGE % 3).astype(np.uint8), Volume(IMAGE[None], oriented(IMAGE, "RAS")[1])
    for ending in (suffix.title(), suffix.upper(), suffix.swapcase().replace("I", "i")):
        write_labels(tmp_path / f"a{ending}", indices, CLASSES, like)
        assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]
        (tmp_path / f"a{ending}").rename(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read_mask(tmp_path / f"a{suffix}").data[0], np.array(CLASSES.values)[indices])
        (tmp_path / f"a{suffix}").unlink()


@pytest.mark.parametrize("suffix", [s for s in WRITERS if s not in (".png", ".tif", ".tiff")])
def test_label_maps_come_back_in_the_inputs_format_with_their_values(tmp_path: Path, suffix: str) -> None:
    array, affine = oriented(IMAGE, "RAS")
    given = tmp_path / f"in{suffix}"
    like = Volume(array[None], affine)
    # An image of that format
    write_labels(given, (array % 3).astype(np.uint8), Classes(("a", "b", "c"), (0, 1, 2)), like)
    volume = read_volume(given)
    assert suffixes_for([given])[0] == (".nii.gz" if suffix == ".nii" else suffix)
    indices = (array % 3).astype(np.uint8)
    write_labels(tmp_path / f"out{suffix}", indices, CLASSES, volume)
    mask = read_mask(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(mask.data[0], np.array(CLASSES.values)[indices])
    np.testing.assert_allclose(mask.affine, affine, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


@pytest.mark.parametrize(
    ("name", "expected"), [("a.mhd", ".mha"), ("a.nhdr", ".nrrd"), ("a.hdr", ".nii.gz"), ("a.nii", ".nii.gz")]
)
def test_inputs_of_two_files_get_label_maps_of_one(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).touch()
    assert suffixes_for([tmp_path / name])[0] == expected


def test_headers_with_voxels_beside_them(tmp_path: Path, write_series, refused) -> None:
    for name in ("a.mhd", "a.nhdr"):
        path = save(tmp_path / "x", IMAGE, LPS, "mha", write_series)
        sitk.WriteImage(sitk.ReadImage(str(path)), str(tmp_path / name))
        np.testing.assert_array_equal(read_volume(tmp_path / name).data[0], IMAGE)
        text = (tmp_path / name).read_bytes()
        for voxels in tmp_path.glob("a.*raw*"):
            (tmp_path / name).write_bytes(text.replace(voxels.name.encode(), b"../../etc/passwd"))
            refused(tmp_path / name, "its voxels must lie in one file beside it")


def test_analyze_pairs(tmp_path: Path, refused) -> None:
    nib.save(nib.AnalyzeImage(IMAGE, np.diag([-1.5, 1.2, 5, 1.0])), tmp_path / "a.hdr")
    volume = read_volume(tmp_path / "a.hdr")
    np.testing.assert_array_equal(volume.data[0], np.asarray(nib.load(tmp_path / "a.hdr").dataobj))
    assert volume.spacing == pytest.approx((1.5, 1.2, 5))
    nib.save(nib.Nifti1Pair(IMAGE, LPS), tmp_path / "b.hdr")
    np.testing.assert_allclose(read_volume(tmp_path / "b.hdr").affine, LPS, atol=1e-5)
    refused(tmp_path / "b.img", "holds voxels without a header")
    (tmp_path / "b.img").unlink()
    refused(tmp_path / "b.hdr", r"its voxels must lie beside it in b\.img")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd", ".mha"])
def test_channels_of_one_file(tmp_path: Path, suffix: str, refused) -> None:
    data = RNG.integers(0, 99, (*SHAPE, 3)).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    if suffix == ".nii.gz":
        nib.save(nib.Nifti1Image(data, LPS), path)
    elif suffix == ".mgz":
        nib.save(nib.freesurfer.MGHImage(data, LPS), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(data.transpose(2, 1, 0, 3), isVector=True), str(path))
    volume = read_volume(path, channels=3)
    np.testing.assert_array_equal(volume.data, np.moveaxis(data, -1, 0))
    assert [decision.rule for decision in volume.decisions] == ["fourth-axis"]
    with pytest.raises(InputError, match="must have 2 channels, got 3"):
        read_volume(path, channels=2)
    refused(path, "mask", read_mask)


@pytest.mark.parametrize("suffix", [".webp", ".jp2", ".ppm", ".pgm", ".ppm.gz"])
def test_other_pictures(tmp_path: Path, suffix: str) -> None:
    import gzip

    images = pytest.importorskip("PIL.Image")
    colour = RNG.integers(0, 255, (12, 9, 3)).astype(np.uint8)
    picture = colour[:, :, 0] if suffix == ".pgm" else colour
    plain = tmp_path / f"a{suffix.removesuffix('.gz')}"
    images.fromarray(picture).save(plain, **({"lossless": True} if suffix == ".webp" else {}))
    if suffix.endswith(".gz"):
        (tmp_path / "a.ppm.gz").write_bytes(gzip.compress(plain.read_bytes()))
    data = read_volume(tmp_path / f"a{suffix}").data[..., 0]
    np.testing.assert_array_equal(data, picture.transpose(2, 1, 0) if picture.ndim == 3 else picture.T[None])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *((name, "holds voxels without a header") for name in ("a.raw", "a.zraw", "a.img")),
        *((f"a.{ending}", rf"\.{ending} is not read; the formats are NIfTI, MGZ, NRRD") for ending in ("minc", "xyz")),
    ],
)
def test_what_is_no_file_of_a_format_is_named(tmp_path: Path, name: str, rule: str, refused) -> None:
    (tmp_path / name).write_bytes(bytes(100))
    refused(tmp_path / name, rule)


def test_no_ending_belongs_to_two_formats() -> None:
    endings = [suffix for format in FORMATS for suffix in (*format.suffixes, *format.companions)]
    assert len(endings) == len(set(endings))
    assert not [
        (a, b) for a, b in itertools.permutations(endings, 2) if a.endswith(b) and (a, b) not in {(".raw.gz", ".gz")}
    ]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_header_without_an_orientation_says_so(tmp_path: Path, suffix: str) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(IMAGE.transpose(2, 1, 0)))
    sitk.WriteImage(image, str(tmp_path / f"stated{suffix}"), useCompression=False)
    assert read_volume(tmp_path / f"stated{suffix}").is_oriented
    header, voxels = (tmp_path / f"stated{suffix}").read_bytes()[: -IMAGE.nbytes], IMAGE.transpose(2, 1, 0).tobytes()
    kept = [
        line
        for line in header.split(b"\n")
        if not line.lower().startswith((b"space:", b"space directions", b"space origin", b"transformmatrix"))
    ]
    (tmp_path / f"bare{suffix}").write_bytes(b"\n".join(kept) + voxels)
    volume = read_volume(tmp_path / f"bare{suffix}")
    np.testing.assert_array_equal(volume.data[0], IMAGE)
    assert not volume.is_oriented
    assert [decision.rule for decision in volume.decisions] == ["itk-orientation"]
