"""gzip as Python's own module reads it, in a time that follows from the size."""

import gzip
import io
import random
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.io.gzip_file import open_gzip
from attunet.io.readers import read_volume

DATA = random.Random(0).randbytes(40_000) + bytes(200_000)
PACKED = gzip.compress(DATA, mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        PACKED,
        PACKED + bytes(20_000),
        PACKED + bytes(3) + PACKED + gzip.compress(b"") + PACKED,
        b"".join(gzip.compress(DATA[at : at + 100]) for at in range(0, len(DATA), 100)),
        b"",
    ],
    ids=["one member", "zeros behind it", "several members", "many members", "nothing"],
)
def test_contents_are_those_of_pythons_own_module(content: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "a.gz").write_bytes(content)
    wanted = gzip.decompress(content)
    with open_gzip(path) as file:
        assert file.read() == wanted
        assert file.seek(39_990) == min(39_990, len(wanted))
        assert file.read(30) == wanted[39_990:40_020]
        file.seek(5)
        file.seek(-2, io.SEEK_CUR)
        assert (file.read(9), file.tell()) == (wanted[3:12], min(12, len(wanted)) if wanted else 0)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (PACKED[:-9], EOFError),
        (PACKED[:-1], EOFError),
        (PACKED[:5], EOFError),
        (PACKED + b"abc", gzip.BadGzipFile),
        (PACKED + b"\x1f", gzip.BadGzipFile),
        (b"plain", gzip.BadGzipFile),
        (PACKED[:-6] + bytes([PACKED[-6] ^ 1]) + PACKED[-5:], zlib.error),
        (PACKED[:-1] + b"\x01", zlib.error),
    ],
    ids=["cut", "no last byte", "half a header", "text behind", "half a mark", "plain", "other sum", "other size"],
)
def test_damage_raises_an_error(content: bytes, error: type[Exception], tmp_path: Path) -> None:
    (path := tmp_path / "a.gz").write_bytes(content)
    with open_gzip(path) as file, pytest.raises(error):
        file.read()


def scan() -> bytes:
    return bytes(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes())


@pytest.mark.parametrize("ending", [".nii.gz", ".mgz"])
def test_members_that_hold_nothing_are_refused(ending: str, tmp_path: Path) -> None:
    (path := tmp_path / f"a{ending}").write_bytes(gzip.compress(b"") * 3000 + gzip.compress(scan()))
    with pytest.raises(InputError, match=r"a\..*: .*more than 1,\d+ members"):
        read_volume(path)


def test_a_long_name_in_the_header_is_passed_over(tmp_path: Path) -> None:
    content = gzip.compress(scan())
    (path := tmp_path / "a.nii.gz").write_bytes(
        b"\x1f\x8b\x08\x08" + content[4:10] + b"a" * 2**24 + b"\0" + content[10:]
    )
    assert read_volume(path).shape == (4, 4, 4)
