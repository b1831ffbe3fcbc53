"""NRRD and MetaImage are read as ITK reads them, but for headers that lead elsewhere; ITK reads what is written."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from attunet.errors import InputError
from attunet.io.itk.itk import TO_RAS
from attunet.io.readers import read_volume
from attunet.io.writers import write_map
from attunet.volumes.volume import Volume

sitk = pytest.importorskip("SimpleITK")

VOXELS = np.random.default_rng(0).integers(0, 20_000, 120).astype("<i2")
DIRECTIONS = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
TYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
META = "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_SHORT\n"
META_LINES = {
    "plain": "",
    "size": "ElementSize = 2 3 4\n",
    "spacing and size": "ElementSpacing = 1 2 3\nElementSize = 2 3 4\n",
    "position": "Position = 1 2 3\n",
    "origin": "Origin = 1 2 3\n",
    "rotation": "Rotation = 0 1 0 1 0 0 0 0 1\nElementSpacing = 1 2 3\n",
    "orientation": "Orientation = 0 1 0 0 0 1 1 0 0\nElementSpacing = 1 2 3\nOffset = 4 5 6\n",
    "units": "DistanceUnits = cm\nElementSpacing = 1 2 3\n",
    "anatomy": "AnatomicalOrientation = RAS\n",
}
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nendian: little\n"
STEPS = "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (1,2,3)\n"
NRRD_LINES = {
    "plain": "",
    "ras": f"space: right-anterior-superior\n{STEPS}",
    "las": f"space: left-anterior-superior\n{STEPS}",
    "lps": "space: LPS\nspace directions: (0,1,0) (0,0,2) (3,0,0)\nspace origin: (1,2,3)\n",
    "scanner": f"space: scanner-xyz\n{STEPS}",
    "dimension": f"space dimension: 3\n{STEPS}",
    "spacings": "spacings: 1 2 3\n",
    "nan": "spacings: nan 2 3\n",
    "mins": "spacings: 1 2 3\naxis mins: 1 2 3\n",
    "mins of nodes": "spacings: 1 2 3\naxis mins: 1 2 3\ncenters: node node node\n",
    "thickness": "thicknesses: nan nan 5\nspacings: 1 2 nan\n",
    "kinds": f"kinds: space space space\nspace: LPS\n{STEPS}",
    "comments": "# sizes: 1 1 1\nsizes:=1 1 1\n",
}
FOUR = NRRD.replace("dimension: 3", "dimension: 4")
NRRD_AXES = {
    "vector": NRRD.replace("6 5 4", "2 3 20") + "kinds: vector domain domain\n",
    "list first": FOUR.replace("6 5 4", "2 3 5 4") + "kinds: list space space space\nspace: LPS\n"
    "space directions: none (1,0,0) (0,2,0) (0,0,3)\n",
    "list last": FOUR.replace("6 5 4", "3 5 4 2") + "kinds: space space space list\nspace: LPS\n"
    "space directions: (1,0,0) (0,2,0) (0,0,3) none\n",
    "colours": FOUR.replace("6 5 4", "3 5 4 2") + "kinds: RGB-color domain domain domain\n",
    "time": FOUR.replace("6 5 4", "3 5 4 2") + "kinds: domain domain domain time\n",
    "four": FOUR.replace("6 5 4", "3 5 4 2"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with the same voxels in several encodings."""
    for name, data in {
        "plain.raw": VOXELS.tobytes(),
        "behind.raw": bytes(100) + VOXELS.tobytes(),
        "big.raw": VOXELS.astype(">i2").tobytes(),
        "long.raw": VOXELS.astype("<i4").tobytes(),
        "packed.raw.gz": gzip.compress(VOXELS.tobytes()),
    }.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def as_itk_reads(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`(C, X, Y, Z)` and the affine in RAS+."""
    image = sitk.ReadImage(str(path))
    dimension, array = image.GetDimension(), sitk.GetArrayFromImage(image)
    array = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    array = array[:, None] if dimension == 2 else array[0] if dimension == 4 else array
    n, lps = min(3, dimension), np.eye(4)
    directions = np.array(image.GetDirection()).reshape(dimension, -1)[:n, :n]
    lps[:n, :n] = directions * np.array(image.GetSpacing()[:n])
    lps[:n, 3] = image.GetOrigin()[:n]
    return array.transpose(0, 3, 2, 1), TO_RAS @ lps


def check_as_itk(path: Path) -> None:
    ours, (array, affine) = read_volume(path, channels=None), as_itk_reads(path)
    np.testing.assert_array_equal(ours.data, array.astype(ours.data.dtype))
    np.testing.assert_allclose(ours.affine, affine, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd", "nhdr"])
def test_what_itk_writes(tmp_path: Path, ending: str, dtype: str) -> None:
    image = sitk.GetImageFromArray((np.random.default_rng(2).normal(size=(4, 5, 6)) * 50).astype(dtype))
    image.SetSpacing((1.5, 2, 3))
    image.SetOrigin((1, 2, 3))
    image.SetDirection(DIRECTIONS.ravel().tolist())
    for packed in (False, True):
        sitk.WriteImage(image, str(tmp_path / f"a.{ending}"), packed)
        check_as_itk(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize(("shape", "is_vector"), [((4, 5, 6, 3), True), ((5, 6), False), ((5, 6, 2), True)])
def test_channels_and_slices_that_itk_writes(
    tmp_path: Path, ending: str, shape: tuple[int, ...], is_vector: bool
) -> None:
    array = np.random.default_rng(3).integers(0, 99, shape).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(tmp_path / f"a.{ending}"))
    check_as_itk(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("lines", META_LINES.values(), ids=META_LINES)
def test_lines_of_metaimage(folder: Path, lines: str) -> None:
    (folder / "a.mhd").write_text(f"{META}{lines}ElementDataFile = plain.raw\n")
    check_as_itk(folder / "a.mhd")
    (folder / "b.mhd").write_bytes(f"{META}{lines}ElementDataFile = plain.raw".replace("\n", "\r\n").encode())
    check_as_itk(folder / "b.mhd")


@pytest.mark.parametrize(
    ("lines", "file"),
    [
        ("HeaderSize = 100\n", "behind.raw"),
        ("HeaderSize = -1\n", "behind.raw"),
        ("BinaryDataByteOrderMSB = True\n", "big.raw"),
        ("ElementByteOrderMSB = True\n", "big.raw"),
        ("ElementType = MET_LONG\n", "long.raw"),
        ("ElementType = MET_SHORT_ARRAY\n", "plain.raw"),
    ],
)
def test_encodings_of_metaimage(folder: Path, lines: str, file: str) -> None:
    head = META.replace("ElementType = MET_SHORT\n", "") if "ElementType" in lines else META
    (folder / "a.mhd").write_text(f"{head}{lines}ElementDataFile = {file}\n")
    np.testing.assert_array_equal(read_volume(folder / "a.mhd").data[0], VOXELS.reshape(6, 5, 4, order="F"))
    check_as_itk(folder / "a.mhd")


@pytest.mark.parametrize("lines", NRRD_LINES.values(), ids=NRRD_LINES)
def test_lines_of_nrrd(folder: Path, lines: str) -> None:
    (folder / "a.nhdr").write_text(f"{NRRD}{lines}data file: plain.raw\n")
    check_as_itk(folder / "a.nhdr")
    (folder / "b.nrrd").write_bytes(f"{NRRD}{lines}\n".replace("\n", "\r\n").encode() + VOXELS.tobytes())
    check_as_itk(folder / "b.nrrd")


@pytest.mark.parametrize("header", NRRD_AXES.values(), ids=NRRD_AXES)
def test_axes_of_nrrd(folder: Path, header: str) -> None:
    (folder / "a.nhdr").write_text(f"{header}data file: plain.raw\n")
    check_as_itk(folder / "a.nhdr")


@pytest.mark.parametrize(
    ("old", "new", "file"),
    [
        ("little", "big", "big.raw"),
        ("raw", "gzip", "packed.raw.gz"),
        ("short", "signed short int", "plain.raw"),
        ("dimension", "byte skip: 100\ndimension", "behind.raw"),
        ("dimension", "byte skip: -1\ndimension", "behind.raw"),
    ],
)
def test_encodings_of_nrrd(folder: Path, old: str, new: str, file: str) -> None:
    (folder / "a.nhdr").write_text(f"{NRRD.replace(old, new)}data file: {file}\n")
    check_as_itk(folder / "a.nhdr")


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "u4", "f4"])
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_itk_reads_what_is_written(tmp_path: Path, ending: str, dtype: str) -> None:
    values = (np.random.default_rng(4).normal(size=(6, 5, 4)) * 50).astype(dtype)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = DIRECTIONS * (1.5, 2, 3), (7, 8, 9)
    write_map(tmp_path / f"a.{ending}", values, Volume(np.zeros((1, 6, 5, 4)), affine))
    array, seen = as_itk_reads(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(array[0], values)
    assert array.dtype == values.dtype
    np.testing.assert_allclose(seen, affine, atol=1e-9)
    check_as_itk(tmp_path / f"a.{ending}")


ELSEWHERE = {
    "m1.mhd": META + "elementdatafile = LOCAL\nElementDataFile = ../secret/voxels.raw\n",
    "m0.mhd": META + "elementdatafile = LOCAL\n" + 100 * "comment\n",
    "m2.mhd": META + "datafile = LOCAL\nComment = elementdatafile\nElementDataFile = ../secret/voxels.raw\n",
    "m3.mhd": META + "ElementDataFile = LIST\n../secret/voxels.raw\n",
    "m4.mhd": META + "ElementDataFile = LIST 3\n../secret/voxels.raw\n",
    "m5.mhd": META + "ElementDataFile = %d.raw 1 4 1\n",
    "m6.mhd": META + "ElementDataFile = /dev/zero\n",
    "m7.mhd": META + "ElementDataFile = pipe\n",
    "m8.mhd": META + "ElementDataFile = link.raw\n",
    "n1.nhdr": NRRD + 1001 * "# comment\n" + "data file: ../secret/voxels.raw\n",
    "n2.nhdr": NRRD + "elementdatafile:=LOCAL\ndata file: ../secret/voxels.raw\n",
    "n3.nhdr": NRRD + "data file: LIST\n../secret/voxels.raw\n",
    "n4.nhdr": NRRD + "data file: %d.raw 1 4 1\n",
    "n8.nhdr": NRRD + "data file: LIST 3\n",
    "n5.nhdr": NRRD + "datafile: plain.raw\ndata file: ../secret/voxels.raw\n",
    "n6.nhdr": NRRD + "Data File: /dev/zero\n",
    "n7.nhdr": NRRD + "data file: pipe\n",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_voxels_are_never_those_of_another_folder(folder: Path, name: str) -> None:
    """Other readers follow a header that is spelled otherwise, a list or a pattern, and wait for a pipe."""
    (folder / "secret").mkdir()
    (folder / "secret" / "voxels.raw").write_bytes(VOXELS.tobytes())
    scans = folder / "scans"
    scans.mkdir()
    for file in ("LIST", "LIST 3", ":LOCAL", "plain.raw", "%d.raw 1 4 1"):
        (scans / file).write_bytes(VOXELS.tobytes())
    os.mkfifo(scans / "pipe")
    (scans / "link.raw").symlink_to("../secret/voxels.raw")
    (scans / name).write_text(ELSEWHERE[name])
    with pytest.raises(InputError, match=name):
        read_volume(scans / name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "line", ["Offset = 1e308 0 0", "TransformMatrix = 1e308 0 0 0 1e308 0 0 0 1", "Offset = nan 0 0"]
)
def test_a_place_that_no_scanner_has_is_refused(folder: Path, line: str) -> None:
    (folder / "a.mhd").write_text(f"{META}{line}\nElementDataFile = plain.raw\n")
    with pytest.raises(InputError, match=r"a\.mhd: the (affine|first voxel) must"):
        read_volume(folder / "a.mhd")


@pytest.mark.parametrize("centers", ["node cell node", "cell node cell", "none none node", "cell cell cell"])
def test_each_axis_has_a_center_of_its_own(tmp_path: Path, centers: str) -> None:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n"
    lines = f"spacings: 1.5 2.5 3.5\naxis mins: 10 20 30\ncenterings: {centers}\n\n"
    (tmp_path / "a.nrrd").write_bytes((head + lines).encode() + VOXELS.tobytes())
    check_as_itk(tmp_path / "a.nrrd")


def test_voxels_as_text_are_refused(tmp_path: Path) -> None:
    numbers = " ".join(map(str, VOXELS))
    (tmp_path / "a.mha").write_text(f"{META}BinaryData = False\nElementDataFile = LOCAL\n{numbers}")
    with pytest.raises(InputError, match=r"a\.mha: its header's BinaryData must be True, numbers as text are not read"):
        read_volume(tmp_path / "a.mha")
    (tmp_path / "a.nrrd").write_text(f"{NRRD.replace('raw', 'ascii')}\n{numbers}")
    with pytest.raises(InputError, match=r"a\.nrrd: its header's encoding must be raw or gzip, got 'ascii'"):
        read_volume(tmp_path / "a.nrrd")


def test_the_header_itself_is_never_voxels(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(f"{META}HeaderSize = 10\nElementDataFile = LOCAL\n".encode() + VOXELS.tobytes())
    with pytest.raises(InputError, match=r"a\.mha: its header's HeaderSize must not lie within the header, got 10"):
        read_volume(tmp_path / "a.mha")
    (tmp_path / "a.mha").write_bytes(f"{META}HeaderSize = -1\nElementDataFile = LOCAL\n".encode() + VOXELS.tobytes())
    (tmp_path / "a.nrrd").write_bytes(f"{NRRD}byte skip: -1\n\n".encode() + VOXELS.tobytes())
    for name in ("a.mha", "a.nrrd"):
        check_as_itk(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2])
        with pytest.raises(InputError, match=rf"{name}: is cut short: .* 240 bytes of voxels, there are 238"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("space: patient\nspace directions: (1,0,0) (0,1,0) (0,0,1)", "space must be one of .*, got 'patient'"),
        ("space: RAS\nspacings: 1 1 1", "space must have space directions"),
    ],
)
def test_a_space_that_itk_refuses_is_refused(tmp_path: Path, lines: str, rule: str) -> None:
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n{lines}\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + VOXELS.tobytes())
    with pytest.raises(InputError, match=rf"a\.nrrd: its header's {rule}"):
        read_volume(tmp_path / "a.nrrd")
    with pytest.raises(RuntimeError):
        as_itk_reads(tmp_path / "a.nrrd")


def test_time_is_of_channels_where_it_comes_first_too(folder: Path) -> None:
    header = FOUR.replace("6 5 4", "2 3 5 4") + "space: LPS\nspace directions: none (0,1,0) (0,0,2) (3,0,0)\n"
    images = []
    for kind in ("list", "time"):
        (folder / "a.nhdr").write_text(f"{header}kinds: {kind} space space space\ndata file: plain.raw\n")
        images.append(read_volume(folder / "a.nhdr", channels=None))
    np.testing.assert_array_equal(images[0].data, images[1].data)
    np.testing.assert_array_equal(images[0].affine, images[1].affine)


def test_space_and_time_are_a_space(tmp_path: Path) -> None:
    head = "NRRD0004\ntype: short\ndimension: 4\nsizes: 6 5 4 1\nendian: little\nencoding: raw\n"
    lines = "space: right-anterior-superior-time\nspace directions: (1,0,0,0) (0,1,0,0) (0,0,1,0) (0,0,0,1)\n\n"
    (tmp_path / "a.nrrd").write_bytes((head + lines).encode() + VOXELS.tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").affine, np.eye(4))


@pytest.mark.parametrize("end", ["\x0b", "\r", "?", "#", "x"])
def test_nothing_is_quoted_of_the_line_behind_a_damaged_end(tmp_path: Path, end: str) -> None:
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nspace: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
    nrrd += f"encoding: raw\nendian: little\nspace origin: (0,0,0){end}0010|0010:=SECRET\n\n"
    (tmp_path / "a.nrrd").write_bytes(nrrd.encode() + VOXELS.tobytes())
    meta = f"{META}Offset = 0 0 0{end}PatientName = SECRET\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(meta.encode() + VOXELS.tobytes())
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(InputError, match=r"its header.s .* must be \d numbers, got ") as error:
            read_volume(tmp_path / name)
        assert "SECRET" not in str(error.value)
