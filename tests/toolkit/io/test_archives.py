import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from file_limit import file_limit

from attunet.errors import DiskError, InputError
from attunet.io import archives as archive
from attunet.io.archives import extract, member_names


def everything(name: str) -> bool:
    return True


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def add(path: Path, info: zipfile.ZipInfo, content: bytes = b"x") -> None:
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(info, content)


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


def refused(path: Path, into: Path, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        extract(path, into, everything)
    assert "\n" not in str(caught.value)
    assert not into.exists()


def test_wanted_members_come_out_as_they_went_in(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"x/a.nii": b"one", "x/b.txt": b"two", "c.nii": b""})
    assert extract(path, tmp_path / "out", lambda name: name.endswith(".nii")) == 2
    out = tmp_path / "out"
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == {"x/a.nii": b"one", "c.nii": b""}


@pytest.mark.parametrize(
    "name", ["../out.nii", "/etc/passwd.nii", "a/../../b.nii", "..\\b.nii", "C:/b.nii", "a/\x1b[2J.nii"]
)
def test_a_member_that_leads_out_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", **{"good.nii": b"x"})
    add(path, zipfile.ZipInfo(name))
    refused(path, tmp_path / "out", "members must lie inside the archive")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    path = zipped(tmp_path / "a.zip", **{"good.nii": b"x"})
    add(path, special("link.nii", kind), b"/etc/passwd")
    refused(path, tmp_path / "out", "members must be regular files")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_meet_in_one_file_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"a.nii": b"x"})
    add(path, zipfile.ZipInfo("A.nii"))
    refused(path, tmp_path / "out", "is there twice")


@pytest.mark.parametrize(
    ("limit", "value", "rule"),
    [
        ("MAX_MEMBERS", 2, "at most 2 members"),
        ("MAX_MEMBER_BYTES", 999, "a member of at most 999 bytes"),
        ("MAX_TOTAL_BYTES", 1500, "must unpack to at most"),
    ],
)
def test_counts_and_sizes_are_capped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, rule: str
) -> None:
    monkeypatch.setattr(archive, limit, value)
    refused(zipped(tmp_path / "a.zip", a=bytes(1000), b=b"x", c=bytes(800)), tmp_path / "out", rule)


def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED_BYTES", 2**20)
    refused(
        zipped(tmp_path / "a.zip", bomb=bytes(2**24)), tmp_path / "out", "must unpack to at most 100 times its size"
    )


def test_damaged_encrypted_and_lying_archives_are_one_line(tmp_path: Path) -> None:
    body = bytes(range(256)) * 20
    path = zipped(tmp_path / "a.zip", a=body)
    raw = path.read_bytes()

    def attempt(changed: bytes, rule: str) -> None:
        path.write_bytes(changed)
        with pytest.raises(InputError, match=rule):
            extract(path, tmp_path / "out", everything)

    attempt(raw[: len(raw) // 2], "cannot be read as an archive")
    attempt(b"no zip", "cannot be read as an archive")
    at = raw.index(b"PK\x01\x02")  # the directory
    attempt(raw[: at + 8] + bytes([raw[at + 8] | 1]) + raw[at + 9 :], "must not be encrypted")
    wrong_size = raw[: at + 24] + (100).to_bytes(4, "little") + raw[at + 28 :]
    attempt(wrong_size, "cannot be read as an archive|does not have the size")
    wrong_byte = raw[:60] + bytes([raw[60] ^ 255]) + raw[61:]
    attempt(wrong_byte, "cannot be read as an archive|does not have the size|is there twice|File exists")


def test_an_entry_that_hides_those_behind_it_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{name: name.encode() * 100 for name in ("a", "b", "c")})
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 33] ^= 4  # the length of the first entry's comment
    path.write_bytes(content)
    refused(path, tmp_path / "out", "its directory is damaged: 1 of 3 entries are found")


def test_a_directory_of_many_entries_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "a.zip", **{f"{number:04d}.nii": b"" for number in range(2000)})
    assert len(member_names(path)) == 2000
    monkeypatch.setattr(archive, "FREE_MEMBERS", 1000)
    monkeypatch.setattr("zipfile.ZipInfo", None)
    with pytest.raises(InputError, match=r"a\.zip: must have at most 1,\d\d\d members, got 2,000"):
        member_names(path)
    monkeypatch.setattr(archive, "MEMBER_HEADER_BYTES", 16)
    with pytest.raises(InputError, match=r"a\.zip: its directory must have at most \d\d,\d\d\d bytes, got \d+,"):
        member_names(path)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_a_full_disk_is_no_damage_of_the_archive(tmp_path: Path, ending: str) -> None:
    (tmp_path / "a.nii").write_bytes(bytes(5000))
    path = tmp_path / f"a{ending}"
    if ending == ".zip":
        zipped(path, **{"a.nii": bytes(5000)})
    else:
        with tarfile.open(path, "w:gz" if ending == ".tar.gz" else "w") as opened:
            opened.add(tmp_path / "a.nii", "a.nii")
    with file_limit(1000), pytest.raises(DiskError) as caught:
        extract(path, tmp_path / "out", everything)
    assert str(caught.value) == f"{tmp_path / 'out/a.nii'}: cannot be written: File too large"


def test_a_member_that_is_a_folder_too_is_the_archives_fault(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"a": b"x", "a/b": b"x"})
    with pytest.raises(InputError, match=r"out/a.*: cannot be written: "):
        extract(path, tmp_path / "out", everything)


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_an_archive_of_more_files_than_it_has_bytes_for_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    if ending == ".zip":
        zipped(path, **{f"{number}.nii": b"" for number in range(14_000)})
    else:
        with tarfile.open(path, "w:gz") as opened:
            for number in range(14_000):
                opened.addfile(tarfile.TarInfo(f"{number}.nii"))
    refused(path, tmp_path / "out", r"at most 1[0-2],[0-9]{3} members")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_methods_of_compression_are_refused_unread(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr("a.nii", b"voxels" * 100)
    content = bytearray(archive.read_bytes())
    content[46:50] = bytes(4)  # of the stream, whose library would raise an error of its own
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: must be compressed by deflate .*, 'a\.nii' is by method 1[24]"):
        extract(archive, tmp_path / "into", lambda _: True)


def packed_tar(path: Path, *headers: tuple[bytes, bytes]) -> Path:
    """A tar of one member behind extended headers, each of a type and its records."""
    with gzip.open(path, "wb", 1) as file:
        for kind, records in headers:
            info = tarfile.TarInfo("header")
            info.type, info.size = kind, len(records)
            file.write(info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512))
        file.write(tarfile.TarInfo("a.nii").tobuf() + bytes(1024))
    return path


def records(number: int, value: bytes) -> bytes:
    """Records of 20 bytes and the value's, each with a key of its own."""
    return b"".join(b"%08d %09d=%s\n" % (20 + len(value), key, value) for key in range(number))


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ([(tarfile.XHDTYPE, records(1, bytes(999_000)))] * 18, "its headers are too large for its size"),
        ([(tarfile.XHDTYPE, bytes(2**20 + 1))], r"a header of 1,049,088 bytes"),
        ([(tarfile.XHDTYPE, b"1" * 100)], "a header has a hundred digits in a row"),
        ([(tarfile.XGLTYPE, records(65, b"x"))], "more than 64 global records"),
    ],
)
def test_headers_of_a_tar_that_take_time_are_refused(
    tmp_path: Path, headers: list[tuple[bytes, bytes]], rule: str
) -> None:
    refused(packed_tar(tmp_path / "a.tar.gz", *headers), tmp_path / "out", f"cannot be read as an archive: {rule}")


def test_thousands_of_small_files_in_a_tar_have_headers_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FREE_HEADER_BYTES", 0)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as opened:
        for number in range(500):
            info = tarfile.TarInfo(f"{'folder/' * 18}{number}.nii")
            info.mtime = 1.25
            opened.addfile(info)
    assert extract(tmp_path / "a.tar.gz", tmp_path / "out", everything) == 500


def test_headers_of_a_tar_as_programs_write_them(tmp_path: Path) -> None:
    long, attributes = "x" * 90 + "/" + "ü" * 100 + ".nii", {"SCHILY.xattr.user.note": "n" * 20_000}
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", pax_headers={"comment": "0" * 40}) as opened:
        for number in range(300):
            info = tarfile.TarInfo(f"{number}/{long}")
            info.pax_headers, info.size = attributes, 4
            opened.addfile(info, io.BytesIO(b"data"))
    assert extract(tmp_path / "a.tar.gz", tmp_path / "out", everything) == 300
    assert (tmp_path / "out/299" / long).read_bytes() == b"data"


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("damage", ["a bit", "zeros", "cut before it", "cut within it", "another tar behind it"])
def test_a_tar_whose_list_of_members_breaks_off_is_refused(tmp_path: Path, ending: str, damage: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as opened:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.nii")
            info.size = 700
            opened.addfile(info, io.BytesIO(b"v" * 700))
    whole = content.getvalue()
    at = 2 * (512 + 1024)  # of the third header
    changed = {
        "a bit": whole[: at + 100] + bytes([whole[at + 100] ^ 1]) + whole[at + 101 :],
        "zeros": whole[:at] + bytes(512) + whole[at + 512 :],
        "cut before it": whole[:at],
        "cut within it": whole[: at + 100],
        "another tar behind it": whole * 2,
    }[damage]
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(changed) if ending == ".tar.gz" else changed)
    refused(path, tmp_path / "out", "a header of its members is damaged, or it is cut short; copy or download it again")
    path.write_bytes(gzip.compress(whole) if ending == ".tar.gz" else whole)
    assert extract(path, tmp_path / "out", everything) == 4
