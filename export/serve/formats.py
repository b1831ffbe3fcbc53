"""Formats of scans and label maps, and the description of a model, which the server and its client share."""

from typing import TypedDict

SUMMARY = "application/json"
MEDIA_TYPES = {
    ".nii.gz": "application/gzip",
    ".nii": "application/x-nifti",
    ".nrrd": "application/x-nrrd",
    ".mha": "application/x-mha",
    ".mgz": "application/x-mgz",
    ".dcm": "application/dicom",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}
MARKS = {  # file ending that the readers know: first bytes of the format; DICOM has its mark behind any 128 bytes
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),  # the second of an empty archive
    ".nii.gz": (b"\x1f\x8b",),
    ".mgz": (b"\x1f\x8b",),
    ".nii": (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"),
    ".png": (b"\x89PNG",),
    ".tif": (b"II*\x00", b"MM\x00*"),
    ".jpg": (b"\xff\xd8\xff",),
    ".bmp": (b"BM",),
    ".gif": (b"GIF8",),
    ".nrrd": (b"NRRD",),
    ".mha": (b"ObjectType", b"NDims", b"Comment"),
}
ANY = ("*/*", "application/*", "application/octet-stream")  # the scan's own format
ENDINGS = {
    **dict.fromkeys(ANY, ""),
    SUMMARY: SUMMARY,
    **{media_type: ending for ending, media_type in reversed(MEDIA_TYPES.items())},
}


class ClassOfModel(TypedDict):
    name: str
    value: int


class ModelDescription(TypedDict):
    """A served model as JSON."""

    name: str
    network: str
    sha256: str  # of its file
    precision: str
    provider: str
    channels: int  # of its input
    channel_names: list[str]  # in its order; empty if they are not known
    classes: list[ClassOfModel]
