"""Broken and hostile bodies: each is refused with one line, and the server goes on."""

import gzip
import io
import json
import stat
import struct
import zipfile
import zlib

import httpx
import nibabel as nib
import numpy as np
import pytest


def nifti(shape: tuple[int, ...], *, spacing: float = 1.5, voxels: bytes = b"", dtype: type = np.int16) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(np.diag([-spacing, -spacing, 5, 1]), code=1)
    header["vox_offset"] = 352
    return header.binaryblock + bytes(4) + voxels


def floats(value: float) -> bytes:
    return nifti((4, 4, 2), voxels=np.full(32, value, "<f4").tobytes(), dtype=np.float32)


def archive(*members: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            opened.writestr(info, content)
    return buffer.getvalue()


def zip_directory(number: int) -> bytes:
    """A zip of entries without members, whose ZIP64 record lies before the longest comment that there may be; its first
    end record says that the directory has 1000 bytes.
    """
    head = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0x21, *[0] * 10)
    entries, start = head * number, b"PK\x03\x04" + bytes(26)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, number, number, len(entries), len(start))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(start) + len(entries), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 1000, 0xFFFFFFFF, 65535)
    return start + entries + record + locator + end + b"x" * 65535


REFUSED = {
    "empty": (b"", 400, "is empty"),
    "no scan": (b"hello" * 100, 422, "must be NIfTI"),
    "no voxels": (nifti((40, 48, 5)), 422, "is cut short"),
    "gzip cut off": (gzip.compress(nifti((40, 48, 5), voxels=bytes(19200)))[:-30], 422, "cannot be read"),
    "gzip damaged": (b"\x1f\x8b\x08" + bytes(400), 422, "cannot be read"),
    "gzip bomb": (gzip.compress(nifti((500, 500, 200), voxels=bytes(10**8))), 413, "of memory"),
    "header bomb": (gzip.compress(nifti((30000, 30000, 1))), 413, "pixels a side"),
    "header bomb of many slices": (gzip.compress(nifti((1000, 1000, 900))), 413, "of memory"),
    "header bomb, not compressed": (nifti((2000, 2000, 30)), 413, "of memory"),
    "more voxels than any scan": (gzip.compress(nifti((30000, 30000, 30000))), 413, "voxels are supported"),
    "more voxels than a number can say": (nifti((32767, 32767, 32767, 32767)), 413, "voxels are supported"),
    "40,000 slices of one voxel": (gzip.compress(nifti((1, 1, 30000), voxels=bytes(60000))), 413, "megapixels"),
    "pixels of 4 m": (gzip.compress(nifti((100, 100, 5), spacing=4000, voxels=bytes(100000))), 413, "pixels a side"),
    "pixels of 100 mm": (gzip.compress(nifti((100, 100, 100), spacing=100, voxels=bytes(2000000))), 413, "scan: "),
    "NaN": (floats(np.nan), 422, "must be finite"),
    "infinite": (floats(np.inf), 422, "must be finite"),
    "complex numbers": (nifti((4, 4, 2), voxels=bytes(256), dtype=np.complex64), 422, "must be real numbers"),
    "empty zip": (archive(), 422, "has no volume"),
    "zip without a scan": (archive(("a.txt", b"hello")), 422, "has no volume"),
    "zip that leads out": (archive(("../a.dcm", b"hello")), 422, "must lie inside"),
    "zip with a link": (archive(("a.dcm", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777), 422, "is a link"),
    "zip bomb": (archive(("a.nii", bytes(2**28))), 413, "must unpack to at most"),
    "zip of many files": (archive(*((f"{number}.dcm", b"") for number in range(5000))), 413, "at most 4,096 members"),
    "zip directory of many entries": (zip_directory(5000), 413, "at most 4,096 members"),
    "zip without directory": (b"PK\x03\x04" + bytes(200), 422, "not a zip file"),
    "zip of two scans": (archive(("a.nii", nifti((4, 4, 4))), ("b.nii", nifti((4, 4, 4)))), 422, "one volume, got 2"),
    "no DICOM behind its mark": (bytes(128) + b"DICM" + bytes(100), 422, "scan.dcm: "),
    "no PNG behind its mark": (b"\x89PNG\r\n\x1a\n" + bytes(100), 422, "scan.png: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_scan_is_refused_with_its_line(strict_server, name):
    body, status, line = REFUSED[name]
    answer = strict_server.post(content=body)
    assert answer.status_code == status, answer.text
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert str(strict_server.temp) not in answer.text


def test_after_all_that_the_server_answers_and_keeps_nothing(strict_server, scan, predicted):
    assert strict_server.post(content=scan.read_bytes()).content == predicted
    assert strict_server.uploads() == []
    assert not any("error" in line.lower() for line in strict_server.lines)


def test_forms_are_checked(strict_server, scan, predicted):
    body = scan.read_bytes()
    head = {"Content-Type": "multipart/form-data; boundary=cut"}
    part = b'--cut\r\nContent-Disposition: form-data; name="scan"; filename="a"\r\n\r\n'
    assert strict_server.post(content=part + body + b"\r\n--cut--\r\n", headers=head).content == predicted
    for content, headers, line in (
        (part + body, head, "cut short"),
        (part + body + b"\r\n--cut--\r\n", {"Content-Type": "multipart/form-data"}, "form"),
        (b"--other\r\n\r\n", head, "form"),
        (b'--cut\r\nContent-Disposition: form-data; name="scan"\r\n\r\na\r\n--cut--\r\n', head, "must hold a file"),
        (part + b"a\r\n" * 1 + (b"\r\n" + part + b"a") * 70 + b"\r\n--cut--\r\n", head, "at most 64 parts"),
    ):
        answer = strict_server.post(content=content, headers=headers)
        assert answer.status_code == 400, answer.text
        assert line in answer.json()["error"]


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(strict_server):
    answer = raw(strict_server, strict_server.head(99999999999))
    assert answer.startswith(b"HTTP/1.1 413")
    chunks = (bytes(2**18) for _ in range(100))
    answer = strict_server.post(content=chunks)  # without a length
    assert answer.status_code == 413
    bomb = gzip.compress(bytes(2**24))
    answer = strict_server.post("/v2/models/small/infer", bomb, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (413, "body: at most 4 MB are accepted after inflating")
    many = zlib.compress(b"[" * 2**22)
    answer = strict_server.post("/v2/models/small/infer", many, headers={"Content-Encoding": "deflate"})
    assert answer.status_code in (400, 413)


def test_a_body_that_ends_early_is_dropped(strict_server):
    head = strict_server.head
    with strict_server.connect() as connection:
        connection.sendall(head(5000) + bytes(100))
    for request in (head("x"), head(5, 6) + b"abcdef", head(-5) + b"abcdef", b"nonsense\r\n\r\n"):
        assert raw(strict_server, request).startswith(b"HTTP/1.1 400"), request
    assert strict_server.get("/v2/health/ready").status_code == 200
    assert strict_server.uploads() == []


def test_a_body_longer_than_its_length_says_is_not_read_on(strict_server, scan):
    """The scan ends where the length says, and what follows is no request."""
    body = scan.read_bytes() + b"\r\n\r\n"  # an end, without which a server waits for more of a head
    answer = raw(strict_server, strict_server.head(len(body) // 2) + body, all_of_it=True)
    assert answer.startswith(b"HTTP/1.1 422")
    assert answer.count(b"HTTP/1.1 ") - answer.count(b"HTTP/1.1 400") == 1
    assert strict_server.get("/v2/health/ready").status_code == 200


def test_two_lengths_of_one_body_are_refused(strict_server):
    """A proxy might take one, the server the other, and what lies between would be a second request."""
    head = b"POST /v1/models/small/segment HTTP/1.1\r\nHost: localhost\r\n"
    second = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = raw(
        strict_server,
        head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second,
        all_of_it=True,
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Content-Length: must not be there" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/small/segment", 405),
        ("PUT", "/v1/models/small/segment", 405),
        ("DELETE", "/v2/models/small", 405),
        ("POST", "/v1/models/other/segment", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/small/versions/7", 404),
        ("GET", "/nothing", 404),
        ("GET", "/page.js/../../settings.py", 404),
        ("POST", "/v1/models/small/segment?answer=picture", 422),
    ],
)
def test_wrong_addresses_have_their_status_and_a_line(strict_server, method, path, status):
    answer = httpx.request(method, strict_server.url + path, timeout=30)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_formats_that_cannot_be_had_are_refused(strict_server, scan):
    body = scan.read_bytes()
    assert strict_server.post(content=body, headers={"Accept": "text/html"}).status_code == 406
    assert strict_server.post(content=body, headers={"Accept": "application/dicom"}).status_code == 406
    assert strict_server.post(content=body, headers={"Content-Encoding": "gzip"}).status_code == 415
    assert json.loads(strict_server.post(content=body, headers={"Accept": "application/json"}).content)["unit"] == "ml"


def test_a_scan_too_large_for_fixed_slices_is_refused_without_the_place_of_the_model(
    save_artefact, serve, write_scan, tmp_path
):
    server = serve(model=save_artefact("fixed.onnx", height=64, width=64))
    scan = write_scan(tmp_path / "scan.nii.gz", (70, 60, 3))
    answer = server.post("/v1/models/fixed/segment", scan.read_bytes())
    assert answer.status_code == 422
    assert answer.json()["error"] == (
        "fixed: takes slices of 64 × 64, those of the volume have 64 × 80 after resampling"
    )


def raw(server, request: bytes, *, all_of_it: bool = False) -> bytes:
    """The first bytes that the server answers, or all until it closes the connection."""
    with server.connect() as connection:
        connection.settimeout(60)  # well beyond the 20 s that a head may take
        connection.sendall(request)
        answer = connection.recv(65536)
        while all_of_it and (more := connection.recv(65536)):
            answer += more
        return answer
