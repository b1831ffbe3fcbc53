"""nnU-Net (`nnunetv2`, where it is installed) beside attunet: its raw data and its 2D trainer."""
