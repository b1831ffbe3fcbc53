"""DICOM: series, files, segmentation objects."""
