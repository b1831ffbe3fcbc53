"""Cases as nnU-Net's raw data, a volume for each case and channel, with one split."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.classes import IGNORE_LABEL

DATASET = "Dataset001_Cases"
ENDING = ".nii.gz"


@dataclass(frozen=True, eq=False)
class RawCase:
    """One labelled volume.

    Args:
        image: `(C, X, Y, Z)`.
        label: class indices `(X, Y, Z)`.
        affine: `(4, 4)`, voxel index to mm.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


def write_raw(
    folder: Path,
    cases: Iterable[RawCase],
    split: tuple[Sequence[str], Sequence[str]],
    *,
    num_classes: int,
    channels: Sequence[str],
) -> None:
    """Writes the cases below `folder/raw`.

    Args:
        folder: of nnU-Net's folders.
        cases: all cases of the split; pixels of `IGNORE_LABEL` get nnU-Net's label to ignore.
        split: names of the cases to train on and of those left out.
        num_classes: with the background.
        channels: nnU-Net's names of the channels, which choose its normalization: "CT", "noNorm", others z-score.

    Example:
        >>> write_raw(folder, cases, (["a", "b"], ["c"]), num_classes=2, channels=["MR"])  # doctest: +SKIP
    """
    raw = folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    ignored = False
    for case in cases:
        ignored |= bool((case.label == IGNORE_LABEL).any())
        label = np.where(case.label == IGNORE_LABEL, num_classes, case.label).astype(np.uint8)
        for path, channel in zip(image_files(folder, case.name, len(channels)), case.image, strict=True):
            nib.save(nib.Nifti1Image(channel.astype(np.float32), case.affine), path)
        nib.save(nib.Nifti1Image(label, case.affine), raw / "labelsTr" / f"{case.name}{ENDING}")
    labels = {"background": 0} | {f"class {number}": number for number in range(1, num_classes)}
    about = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels | ({"ignore": num_classes} if ignored else {}),
        "numTraining": sum(map(len, split)),
        "file_ending": ENDING,
    }
    train, held_out = map(list, split)
    (raw / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    (raw / "splits_final.json").write_text(json.dumps([{"train": train, "val": held_out}]), encoding="utf-8")


def image_files(folder: Path, name: str, num_channels: int) -> list[Path]:
    """The files of a case's channels."""
    return [folder / "raw" / DATASET / "imagesTr" / f"{name}_{number:04d}{ENDING}" for number in range(num_channels)]
