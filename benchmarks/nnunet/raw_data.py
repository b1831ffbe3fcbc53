"""Cases as nnU-Net's raw data, a volume for each case and channel, with one split."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.classes import IGNORE_LABEL

DATASET = "Dataset001_Cases"
ENDING = ".nii.gz"


def write_raw(
    folder: Path,
    split: tuple[Sequence[str], Sequence[str]],
    read: Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    num_classes: int,
    channels: Sequence[str],
) -> dict[str, str]:
    """Writes the cases of a split below `folder/raw`.

    Args:
        folder: of nnU-Net's folders.
        split: the cases to train on, and those left out.
        read: a case -> its image `(C, X, Y, Z)`, class indices `(X, Y, Z)` and affine `(4, 4)`, voxel index to mm;
            pixels of `IGNORE_LABEL` get nnU-Net's label to ignore.
        num_classes: with the background.
        channels: nnU-Net's names of the channels, which choose its normalization: "CT", "noNorm", others z-score.

    Returns:
        Case -> its name there, which `image_files` takes.

    Example:
        >>> write_raw(folder, (["a", "b"], ["c"]), read, num_classes=2, channels=["MR"])["c"]  # doctest: +SKIP
        'case00002'
    """
    names = {case: f"case{number:05d}" for number, case in enumerate([*split[0], *split[1]])}
    raw = folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    ignored = False
    for case, name in names.items():
        image, label, affine = read(case)
        is_ignored = label == IGNORE_LABEL
        ignored |= bool(is_ignored.any())
        for path, channel in zip(image_files(folder, name, len(channels)), image, strict=True):
            nib.save(nib.Nifti1Image(channel.astype(np.float32), affine), path)
        mask = nib.Nifti1Image(np.where(is_ignored, num_classes, label).astype(np.uint8), affine)
        nib.save(mask, raw / "labelsTr" / f"{name}{ENDING}")
    labels = {"background": 0} | {f"class {number}": number for number in range(1, num_classes)}
    about = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels | ({"ignore": num_classes} if ignored else {}),
        "numTraining": len(names),
        "file_ending": ENDING,
    }
    train, held_out = ([names[case] for case in cases] for cases in split)
    (raw / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    (raw / "splits_final.json").write_text(json.dumps([{"train": train, "val": held_out}]), encoding="utf-8")
    return names


def image_files(folder: Path, name: str, num_channels: int) -> list[Path]:
    return [folder / "raw" / DATASET / "imagesTr" / f"{name}_{number:04d}{ENDING}" for number in range(num_channels)]
