"""Files that cannot be read: one line with the file, what it really is or lacks, and what to do."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.io.readers import read_volume

Image = pytest.importorskip("PIL.Image")
sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("pydicom")

DATA = np.random.default_rng(3).integers(-100, 900, (12, 10, 6)).astype(np.int16)
CONTENTS = {
    "is empty": b"",
    "begins with zeros alone": bytes(6000),
    "is a web page": b"\n<!DOCTYPE html><html><title>Sign in</title></html>" * 20,
    "is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "is a pointer of git-annex": b"../../.git/annex/objects/a/b\n",
    "is a zip archive": b"PK\x03\x04" + bytes(4000),
}
PICTURES = ("png", "tif", "jpg", "bmp", "gif", "webp", "jp2", "pgm")
VOLUMES = ("nii", "nii.gz", "mgh", "mgz", "nrrd", "mha", "hdr", "dcm")


def written(folder: Path, ending: str, write_series) -> Path:
    """A good file of a format."""
    path = folder / f"scan.{ending}"
    if ending in PICTURES:
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 30)).astype(np.uint8)).save(path)
    elif ending in ("mgh", "mgz"):
        nib.save(nib.MGHImage(DATA.astype(np.float32), np.eye(4)), path)
    elif ending in ("nrrd", "mha", "mhd", "nhdr"):
        sitk.WriteImage(sitk.GetImageFromArray(DATA.transpose(2, 1, 0)), str(path))
    elif ending == "hdr":
        nib.save(nib.Nifti1Pair(DATA, np.eye(4)), path)
    elif ending == "dcm":
        write_series(folder / "series", DATA[:, :, :1], np.eye(4))[0].rename(path)
    else:
        nib.save(nib.Nifti1Image(DATA, np.eye(4)), path)
    return path


def line_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    line = str(caught.value)
    assert path.name in line
    assert "\n" not in line
    assert "<" not in line
    assert "0x" not in line
    return line


@pytest.mark.parametrize("ending", [*PICTURES, *VOLUMES])
def test_contents_of_another_kind_are_named(tmp_path: Path, ending: str, write_series) -> None:
    path = written(tmp_path, ending, write_series)
    for words, content in CONTENTS.items():
        path.write_bytes(content)
        assert words in line_of(path)
    path.write_bytes(b"II*\0 of no picture")
    assert ("cannot be read as a picture" if ending in PICTURES else "is a TIFF, whatever its name says") in line_of(
        path
    )


@pytest.mark.parametrize("ending", [*PICTURES, *VOLUMES])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_files_that_break_off_say_so(tmp_path: Path, ending: str, share: float, write_series) -> None:
    path = written(tmp_path, ending, write_series)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert any(words in line_of(path) for words in ("cut short", "copy or download it again", "is it damaged?"))


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_voxels_beside_a_header_are_missed_by_their_name(tmp_path: Path, ending: str, write_series) -> None:
    path = written(tmp_path, ending, write_series)
    (voxels,) = (file for file in tmp_path.iterdir() if file != path)
    whole = voxels.read_bytes()
    voxels.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in line_of(path)
    assert voxels.name in line_of(path)
    voxels.unlink()
    assert f"its voxels lie in {voxels.name!r}, which is not there: put it beside the header" in line_of(path)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_a_compressed_stream_that_is_damaged_is_never_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(DATA.transpose(2, 1, 0)), str(path), useCompression=True)
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_volume(path).data[0], DATA)
    middle = len(whole) - 700
    path.write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    assert "its compressed voxels are damaged: copy or download it again" in line_of(path)
    path.write_bytes(whole[:-6])
    assert "its compressed voxels break off; copy or download it again" in line_of(path)


def test_a_name_that_hides_the_format_is_told(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(DATA, np.eye(4)), tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(raw)
    assert "is NIfTI without gzip, whatever its name says: rename it so that it ends in .nii" in line_of(
        tmp_path / "b.nii.gz"
    )
    (tmp_path / "c.nii").write_bytes(gzip.compress(raw))
    assert "is gzipped, whatever its name says: rename it so that it ends in .gz" in line_of(tmp_path / "c.nii")
    (tmp_path / "d.mha").write_bytes(raw)
    assert "is NIfTI" in line_of(tmp_path / "d.mha")


def test_a_library_says_nothing_before_the_line(tmp_path: Path, attunet, capfd) -> None:
    for name, content in {
        "zeros.nii": b"\1" + bytes(4000),
        "text.nii": b"text" * 900,
        "text.hdr": b"text" * 900,
        "text.mgh": b"text" * 900,
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "text.img").write_bytes(b"text" * 900)
    for path in sorted(tmp_path.glob("*.[nhm]*")):
        done = attunet("inspect", path)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert done.err.startswith(f"error: {path}: ")
    assert capfd.readouterr().err == ""
