"""NRRD and MetaImage: headers and voxels."""
