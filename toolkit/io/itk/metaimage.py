"""Headers of MetaImage: `.mha`, and `.mhd` with the voxels in a file beside it.

Source: the format's description at itk.org (MetaIO documentation); its numbers are those of ITK's reader.
"""

import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.io.itk.stored import StoredImage, file_beside, header_lines, numbers, quoted, whole_numbers
from attunet.io.refusal import AGAIN, refusal

TYPES = {
    **{"CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG": "i4"},
    **{"ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8"},
}
SYNONYMS = {
    **{"position": "offset", "origin": "offset", "rotation": "transformmatrix", "orientation": "transformmatrix"},
    "binarydatabyteordermsb": "elementbyteordermsb",
}
LAST = "elementdatafile"
KEYS = {
    *("NDims", "DimSize", "ElementNumberOfChannels", "BinaryData", "CompressedData", "ElementType", "HeaderSize"),
    *("ElementSpacing", "ElementSize", "ElementByteOrderMSB", "BinaryDataByteOrderMSB", "ElementDataFile"),
    *("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation"),
}
SPELLED = {key.lower(): key for key in KEYS}


def read_metaimage(path: Path) -> StoredImage:
    """Read a header; raises InputError as `StoredImage.read`, and for voxels elsewhere than here or beside it."""
    keys, end = _keys(path)
    name = keys[LAST]
    holder = path if name.upper() == "LOCAL" else file_beside(path, name)
    (dimensions,) = whole_numbers(path, "NDims", keys.get("ndims", ""), 1)[:1]
    sizes = whole_numbers(path, "DimSize", keys.get("dimsize", ""), 1)
    if len(sizes) != dimensions or not 2 <= dimensions <= 4:
        raise InputError(f"{path}: must be a 3D image, got the shape {sizes}")
    (channels,) = whole_numbers(path, "ElementNumberOfChannels", keys.get("elementnumberofchannels", "1"), 1)
    if not _flag(keys, "binarydata", True):
        raise InputError(f"{path}: its header's BinaryData must be True, numbers as text are not read: write it anew")
    is_packed = _flag(keys, "compresseddata", False)
    header_end = end if holder == path else 0
    return StoredImage(
        path,
        holder,
        _offset(path, keys, header_end, is_packed),
        is_packed,
        _dtype(path, keys),
        (channels, *sizes) if channels > 1 else sizes,
        0 if channels > 1 else None,
        _directions(path, keys, dimensions),
        _padded(numbers(path, "Offset", keys.get("offset", "0 " * dimensions), dimensions)),
        "transformmatrix" in keys,
        header_end,
    )


def _keys(path: Path) -> tuple[dict[str, str], int]:
    """The lines of the header, and the place after it."""
    keys: dict[str, str] = {}
    for line, end in header_lines(path):
        name, *value = re.split("[=:]", line, maxsplit=1)
        key = name.strip().lower()
        if SPELLED.get(key, name.strip()) != name.strip():
            raise InputError(f"{path}: its header must spell {SPELLED[key]} so, got {quoted(name.strip())}")
        key = SYNONYMS.get(key, key)
        if value and keys.setdefault(key, value[0].strip()) != value[0].strip():
            raise InputError(f"{path}: its header must say {name.strip()[:60]} once")
        if LAST in keys:
            return keys, end
    reason = f"its header has no line ElementDataFile; is it damaged or cut short? {AGAIN}"
    raise refusal(path, "NRRD or MetaImage", reason)


def _flag(keys: dict[str, str], key: str, default: bool) -> bool:
    return keys[key].lower()[:1] in ("t", "1") if key in keys else default


def _dtype(path: Path, keys: dict[str, str]) -> np.dtype:
    stated = keys.get("elementtype", "")
    name = stated.upper().removeprefix("MET_").removesuffix("_ARRAY")
    if name not in TYPES:
        raise InputError(
            f"{path}: its header's ElementType must be MET_ and one of {', '.join(TYPES)}, got {quoted(stated)}"
        )
    return np.dtype(TYPES[name]).newbyteorder(">" if _flag(keys, "elementbyteordermsb", False) else "<")


def _offset(path: Path, keys: dict[str, str], start: int, is_packed: bool) -> int | None:
    (skipped,) = whole_numbers(path, "HeaderSize", keys.get("headersize", "0"), -1)
    if skipped == 0:
        return start
    if 0 < skipped < start:
        raise InputError(f"{path}: its header's HeaderSize must not lie within the header, got {skipped}")
    if is_packed:
        raise InputError(f"{path}: its header's HeaderSize must be 0 for voxels that are not raw, got {skipped}")
    return None if skipped < 0 else skipped


def _directions(path: Path, keys: dict[str, str], dimensions: int) -> np.ndarray:
    spacing = keys.get("elementspacing") or keys.get("elementsize") or "1 " * dimensions
    identity = " ".join(map(str, np.eye(dimensions).ravel()))
    matrix = numbers(path, "TransformMatrix", keys.get("transformmatrix", identity), dimensions**2)
    steps = numbers(path, "ElementSpacing", spacing, dimensions)[:, None] * matrix.reshape(dimensions, dimensions)
    return np.stack([_padded(step) for step in steps])


def metaimage_bytes(values: np.ndarray, lps: np.ndarray) -> bytes:
    """A `.mha` file of values `(X, Y, Z)`, compressed. lps: voxel to millimetres in LPS, `(4, 4)`."""
    name = next(name for name, code in TYPES.items() if np.dtype(code) == values.dtype)
    data = zlib.compress(np.ascontiguousarray(values.T).astype(values.dtype.newbyteorder("<")).tobytes())
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(data)),
        "TransformMatrix": _words((lps[:3, :3] / spacing).T.ravel()),
        "Offset": _words(lps[:3, 3]),
        "ElementSpacing": _words(spacing),
        "DimSize": _words(values.shape),
        "ElementType": f"MET_{name}",
        "ElementDataFile": "LOCAL",
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items()).encode() + data


def _words(values: Iterable[float]) -> str:
    return " ".join(f"{float(value):.17g}" for value in values)


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, (0, max(0, 3 - len(values))))[:3]
