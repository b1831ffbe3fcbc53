"""Media types of label maps, for the server and its client."""

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
ANY = ("*/*", "application/*", "application/octet-stream")  # the scan's own format
ENDINGS = {**dict.fromkeys(ANY, ""), SUMMARY: SUMMARY, **{media_type: ending for ending, media_type in reversed(MEDIA_TYPES.items())}}
