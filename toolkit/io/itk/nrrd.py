"""Headers of NRRD: `.nrrd`, and `.nhdr` with the voxels in a file beside it.

Source: the format's definition at teem.sourceforge.net/nrrd/format.html; its spaces are those of ITK's reader.
"""

import gzip
import re
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.io.itk.stored import StoredImage, file_beside, header_lines, numbers, quoted, whole_numbers
from attunet.io.refusal import AGAIN, refusal

TYPES = {
    **dict.fromkeys(("char", "signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **{"float": "f4", "double": "f8"},
}
PACKED = {"raw": False, "gz": True, "gzip": True}  # encodings of the voxels
DOMAIN_KINDS = ("domain", "space", "time", "???", "none", "")
# Signs that turn a space's first two axes to left and posterior
SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1, -1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1, -1)),
    **dict.fromkeys(("left-posterior-superior", "lps", "scanner-xyz", "3d-right-handed", "3d-left-handed"), (1, 1)),
}


def read_nrrd(path: Path) -> StoredImage:
    """Read a header; raises InputError as `StoredImage.read`, and for voxels elsewhere than here or beside it."""
    keys, end = _keys(path)
    sizes = whole_numbers(path, "sizes", keys.get("sizes", ""), 1)
    (dimension,) = whole_numbers(path, "dimension", keys.get("dimension", ""), 1)[:1]
    if dimension != len(sizes):
        raise InputError(f"{path}: its header's sizes must be {dimension} numbers, got {quoted(keys.get('sizes', ''))}")
    vectors = _vectors(path, keys, dimension)
    channel_axis = _channel_axis(path, keys, vectors, sizes)
    domain = [axis for axis in range(dimension) if axis != channel_axis]
    if not 2 <= len(domain) <= 4:
        raise InputError(f"{path}: must be a 3D image, got the shape {sizes}")
    holder = file_beside(path, keys["datafile"]) if "datafile" in keys else path
    stated = keys.get("encoding", "raw").lower()
    if stated not in PACKED:
        raise InputError(f"{path}: its header's encoding must be raw or gzip, got {quoted(stated)}: write it anew")
    header_end = end if holder == path else 0
    return StoredImage(
        path,
        holder,
        _offset(path, keys, header_end, PACKED[stated]),
        PACKED[stated],
        _dtype(path, keys),
        sizes,
        channel_axis,
        *_grid(path, keys, [vectors[axis] for axis in domain], domain, dimension),
        "space" in keys,
        header_end,
    )


def nrrd_bytes(values: np.ndarray, lps: np.ndarray) -> bytes:
    """A `.nrrd` file of values `(X, Y, Z)`, compressed. lps: voxel to millimetres in LPS, `(4, 4)`."""
    *steps, origin = ("(" + ",".join(f"{number:.17g}" for number in column) + ")" for column in lps.T[:, :3])
    name = values.dtype.name
    lines = (
        "NRRD0004",
        f"type: {dict(float32='float', float64='double').get(name, name)}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, values.shape))}",
        f"space directions: {' '.join(steps)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {origin}",
    )
    data = np.ascontiguousarray(values.T).astype(values.dtype.newbyteorder("<")).tobytes()
    return "\n".join(lines).encode() + b"\n\n" + gzip.compress(data, mtime=0)


def _keys(path: Path) -> tuple[dict[str, str], int]:
    """The fields of the header by their names without blanks, and the place after it."""
    lines = header_lines(path)
    first, end = next(lines, ("", 0))
    if not first.startswith("NRRD000"):
        raise refusal(path, "NRRD or MetaImage", f"it does not begin with NRRD000; is it damaged? {AGAIN}")
    keys: dict[str, str] = {}
    for line, end in lines:
        if not line.strip():
            return keys, end
        name, colon, value = line.strip().partition(":")
        if line.strip().startswith("#") or not colon or value.startswith("="):  # a comment, or a key with a value
            continue
        key = name.replace(" ", "").lower()
        if keys.setdefault(key, value.strip()) != value.strip():
            raise InputError(f"{path}: its header must say {name[:60]} once")
    if "datafile" not in keys:
        raise refusal(path, "NRRD or MetaImage", f"its header breaks off: {AGAIN}")
    return keys, end


def _vectors(path: Path, keys: dict[str, str], dimension: int) -> list[np.ndarray | None]:
    """The step along each axis in the space; None for axes without one, and for all where there is no space."""
    stated = keys.get("spacedirections")
    if stated is None:
        return [None] * dimension
    words = re.findall(r"none|\([^()]*\)", stated.lower())
    if len(words) != dimension:
        raise InputError(f"{path}: its header's space directions must be {dimension} vectors, got {quoted(stated)}")
    return [None if word == "none" else _vector(path, "space directions", word) for word in words]


def _vector(path: Path, key: str, word: str) -> np.ndarray:
    values = word.strip("() ").replace(",", " ")
    return numbers(path, key, values, min(4, max(2, len(values.split()))))[:3]  # a fourth is of time


def _channel_axis(
    path: Path, keys: dict[str, str], vectors: list[np.ndarray | None], sizes: tuple[int, ...]
) -> int | None:
    """The axis of channels: of a kind that is no place, or without a direction where others have one."""
    kinds = keys.get("kinds", "").lower().split()
    kinds += [""] * (len(sizes) - len(kinds))
    has_directions = any(vector is not None for vector in vectors)
    axes = [
        axis
        for axis in range(len(sizes))
        if kinds[axis] not in DOMAIN_KINDS or (has_directions and vectors[axis] is None)
    ]
    if len(axes) > 1:
        raise InputError(f"{path}: must have three axes and channels, got {len(axes)} axes of channels")
    return axes[0] if axes else None


def _grid(
    path: Path, keys: dict[str, str], vectors: list[np.ndarray | None], domain: list[int], dimension: int
) -> tuple[np.ndarray, np.ndarray]:
    """Directions `(axes, 3)` and origin, in LPS."""
    space = keys.get("space", "lps").lower().removesuffix("-time")
    if space not in SPACES:
        raise InputError(f"{path}: its header's space must be one of {', '.join(SPACES)}, got {quoted(space)}")
    if "space" in keys and "spacedirections" not in keys:
        raise InputError(f"{path}: its header's space must have space directions: write it anew")
    signs = np.array([*SPACES[space], 1])
    origin = np.zeros(3)
    if "(" in keys.get("spaceorigin", ""):
        stated = _vector(path, "space origin", keys["spaceorigin"])
        origin[: len(stated)] = stated
    spacings, mins = (
        numbers(path, key, keys[key], dimension) if key in keys else np.full(dimension, np.nan)
        for key in ("spacings", "axismins")
    )
    centers = keys.get("centers", keys.get("centerings", "")).lower().split() + [""] * dimension
    steps = []
    for place, (axis, vector) in enumerate(zip(domain, vectors, strict=True)):
        step = np.zeros(3) if vector is None else np.pad(vector, (0, 3 - len(vector)))
        if vector is None and place < 3:
            step[place] = 1.0 if np.isnan(spacings[axis]) else spacings[axis]
            if "spacedirections" not in keys and not np.isnan(mins[axis]):
                # The place of a cell's edge, but for nodes
                origin[place] = mins[axis] + (0 if centers[axis] == "node" else step[place] / 2)
        steps.append(step)
    return np.stack(steps) * signs, origin * signs


def _dtype(path: Path, keys: dict[str, str]) -> np.dtype:
    stated = " ".join(keys.get("type", "").lower().split())
    if stated not in TYPES:
        raise InputError(f"{path}: its header's type must be an integer or float type, got {quoted(stated)}")
    dtype = np.dtype(TYPES[stated])
    endian = keys.get("endian", "").lower()
    if endian not in ("little", "big") and dtype.itemsize > 1:
        raise InputError(f"{path}: its header's endian must be little or big, got {quoted(endian)}")
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _offset(path: Path, keys: dict[str, str], start: int, is_packed: bool) -> int | None:
    (lines,) = whole_numbers(path, "line skip", keys.get("lineskip", "0"), 0)
    (skipped,) = whole_numbers(path, "byte skip", keys.get("byteskip", "0"), -1)
    if lines or (skipped and is_packed):
        raise InputError(f"{path}: its header must skip no lines, and bytes of raw voxels alone: write it anew")
    return None if skipped < 0 else start + skipped
