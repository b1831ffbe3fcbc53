"""Media types of label maps, and the description of a model, which the server and its client share."""

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
# First bytes of the files; DICOM has its mark behind 128 bytes of any content
MARKS: dict[str, bytes | tuple[bytes, ...]] = {
    "application/gzip": b"\x1f\x8b",
    "application/x-mgz": b"\x1f\x8b",
    "application/x-nifti": (b"\x5c\x01\x00\x00", b"\x1c\x02\x00\x00"),
    "application/x-nrrd": b"NRRD",
    "application/x-mha": b"ObjectType",
    "image/png": b"\x89PNG",
    "image/tiff": (b"II*\x00", b"MM\x00*"),
    "application/dicom": b"",
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
    """A served model as JSON; `sha256`: of its file, `channels`: of its input."""

    name: str
    network: str
    sha256: str
    precision: str
    provider: str
    channels: int
    classes: list[ClassOfModel]
