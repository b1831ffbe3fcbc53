"""Files that strangers made: whatever they hold, the error is ours, one line, and memory stays bounded."""

import gzip
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from attunet.errors import InputError
from attunet.io.readers import read_mask
from attunet.io.writers import write_map
from attunet.volumes.volume import Volume

pytest.importorskip("PIL.Image")
pytest.importorskip("pydicom")
sys.path.insert(0, str(Path(__file__).parents[2] / "hostile"))

from forms import FORMS, read_any  # type: ignore[import-not-found]

MAX_MEMORY_MB = 600  # beyond what the process had before
TELLING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


@st.composite
def damaged(draw: st.DrawFn, base: bytes, header: int) -> bytes:
    """A file with a few changes, most of them where its header is."""
    raw = bytearray(base)
    for _ in range(draw(st.integers(1, 5))):
        span = len(raw) if draw(st.integers(0, 3)) == 0 else min(header, len(raw))
        at = draw(st.integers(0, max(span - 1, 0)))
        change = draw(st.sampled_from(["byte", "number", "number", "cut", "insert", "remove"]))
        if change == "byte" and raw:
            raw[at] = draw(st.integers(0, 255))
        elif change == "number":
            width, order = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from(["little", "big"]))
            raw[at : at + width] = (draw(st.sampled_from(TELLING)) % 2 ** (8 * width)).to_bytes(width, order)
        elif change == "cut":
            del raw[draw(st.integers(0, len(raw))) :]
        elif change == "insert":
            raw[at:at] = draw(st.binary(max_size=20))
        else:
            del raw[at : at + draw(st.integers(1, 30))]
    return bytes(raw)


@st.composite
def png_headers(draw: st.DrawFn) -> bytes:
    """PNG files whose checksums hold, so that what they declare is believed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = st.sampled_from([0, 1, 5, 300, 12_000, 2**31 - 1, 2**32 - 1])
    colour, packing, interlacing = (draw(st.integers(0, bound)) for bound in (7, 1, 2))
    bits = draw(st.sampled_from([1, 2, 4, 8, 16, 7]))
    header = struct.pack(">IIBBBBB", draw(side), draw(side), bits, colour, packing, 0, interlacing)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22)))
    extra = draw(st.sampled_from([b"", chunk(b"PLTE", bytes(6)), text, chunk(b"tRNS", b"\1")]))
    body = zlib.compress(draw(st.binary(max_size=400)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def packed(contents: st.SearchStrategy[bytes], is_packed: bool) -> st.SearchStrategy[bytes]:
    return contents.map(gzip.compress) if is_packed else contents


# name of the file, what may be in it, what reads it, share of the examples
FORMATS: dict[str, tuple[str, st.SearchStrategy[bytes], Callable[[Path], object], float]] = {
    name: (form.name, packed(damaged(form.base(), form.header), form.packed), form.read, form.share)
    for name, form in FORMS.items()
} | {"png headers": ("a.png", png_headers(), read_any, 0.08)}


def fuzz(form: str, examples: int, start: int = 0) -> int:
    """Reads that many files, drawn from the number `start`; returns how many were refused."""
    name, contents, read, share = FORMATS[form]
    refused, number = 0, max(10, round(examples * share))
    limits = settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck))

    @seed(start)
    @limits
    @given(contents)
    def attempt(content: bytes) -> None:
        nonlocal refused
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            try:
                read(path)
                return
            except InputError as error:
                message = str(error)
        refused += 1
        assert "\n" not in message
        assert len(message) < 2000
        assert "Doe" not in message  # who is in a header stays there

    attempt()
    return refused


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_are_refused_in_one_line(
    form: str, little_memory: Callable[..., AbstractContextManager[None]]
) -> None:
    with little_memory(MAX_MEMORY_MB):
        assert fuzz(form, 520) > 0


@pytest.mark.parametrize("form", ["mha", "mgh", "nrrd", "dicom, JPEG 2000", "jpeg 2000", "dicom", "nifti-1"])
def test_no_library_writes_lines_of_its_own(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz(form, 520)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".nii.gz", ".mgz", ".nrrd", ".mha", ".png"])
def test_a_changed_bit_of_compressed_voxels_never_gives_other_labels(ending: str, tmp_path: Path) -> None:
    drawn = np.zeros((128, 128, 1 if ending == ".png" else 32), np.uint8)
    drawn[30:60, 30:70], drawn[75:100, 25:45, ::2] = 1, 2
    unit = "pixel" if ending == ".png" else "mm"
    whole = tmp_path / f"whole{ending}"
    write_map(whole, drawn, Volume(drawn[None], np.eye(4), unit=unit))
    content, rng, refused = whole.read_bytes(), np.random.default_rng(0), 0
    start, expected = len(content) // 2, read_mask(whole).data  # behind the header
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(start, len(content))] ^= 1 << rng.integers(8)
        (path := tmp_path / f"damaged{ending}").write_bytes(damaged)
        try:
            read = read_mask(path).data
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 - no change is refused
            refused += 1
        else:
            np.testing.assert_array_equal(read, expected)
    assert refused > 100
