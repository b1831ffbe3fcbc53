"""Estimates of Dice on generated cases of varying quality, checked on patients left out and on new scans.

`python -m attunet.benchmarks.crossvalidation.confidence DIR` writes generated abdomens with noise drawn widely,
cross-validates a small network on them, learns the estimator from the held-out cases for a single network and for an
ensemble, and compares its estimates with the true Dice of new scans, through the exported artefacts: scans like the
learned ones, and changed ones. Writes DIR/results.json and prints a table; the same call continues a folder.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from attunet.benchmarks.crossvalidation.crossvalidate import crossvalidate
from attunet.benchmarks.program import program_parser, require_same_call, running
from attunet.classes import CHAOS_MR
from attunet.confidence.estimate import OrganEstimate
from attunet.confidence.estimator import Estimator
from attunet.export.build.export_run import export_run
from attunet.export.runtime.observed_case import ObservedCase
from attunet.export.runtime.segmenter import Segmenter
from attunet.fields import JsonObject
from attunet.io.readers import read_volume
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.phantom import write_phantom
from attunet.preparation.prepare import prepare
from attunet.presets import training_config
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.volumes.training_ranges import check_input

NOISE = (0.03, 1.2)  # standard deviation of the added noise over that of the scan, drawn uniformly in its logarithm
# Of a scan (X, Y, Z) and its labels alike
CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "as learned": lambda image, rng: image,
    "noise of 2 to 4 deviations": lambda image, rng: with_noise(image, rng.uniform(2, 4), rng),
    "blurred in plane by 3 pixels": lambda image, rng: gaussian_filter(image, (3, 3, 0)),
    "contrast, gamma 2.5": lambda image, rng: (image / image.max()) ** 2.5 * image.max(),
    "inverted": lambda image, rng: image.max() - image,
    "left and right exchanged": lambda image, rng: image[::-1],
}
MIRRORED = "left and right exchanged"  # whose labels are mirrored too
SETTINGS = ("model.base_width=8", "optim.epochs=5")
FOLDS = 4


def write_scans(folder: Path, cases: int, seed: int) -> None:
    """Writes generated cases at half the resolution, each with its own amount of Rician noise."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}-partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_phantom(partial, cases=cases, seed=seed, reduce=2)
    for number, file in enumerate(sorted(partial.glob("*-src.nii.gz"))):
        rng = np.random.default_rng([seed, number, 1])
        image = nib.Nifti1Image.from_filename(file)
        values = np.asarray(image.dataobj).astype(np.float32)
        noisy = np.round(with_noise(values, np.exp(rng.uniform(*np.log(NOISE))), rng)).astype(np.int16)
        nib.save(nib.Nifti1Image(noisy, image.affine, image.header), file)
    os.replace(partial, folder)


def with_noise(image: np.ndarray, deviations: float, rng: np.random.Generator) -> np.ndarray:
    """The image with Rician noise, in standard deviations of the image."""
    noise = np.float32(image.std() * deviations)
    real, imaginary = (noise * rng.standard_normal(image.shape, np.float32) for _ in range(2))
    return np.hypot(image + real, imaginary)


@dataclass(frozen=True)
class NewOrgan:
    """An organ of a new scan: its true Dice, and what was estimated."""

    change: str
    case: str
    review: bool  # of the case
    organ: str
    true: float
    estimate: OrganEstimate


@dataclass(frozen=True, eq=False)
class Arm:
    """A network, what was learned for it, and its estimates of new scans."""

    network: str
    learned: Estimator
    new: list[NewOrgan]

    def to_json(self) -> JsonObject:
        return {"network": self.network, "learned": self.learned.to_json(), "new": [asdict(one) for one in self.new]}


def measure(folder: Path, patients: int, new: int, seeds: int) -> list[Arm]:
    """Trains, learns and compares.

    Args:
        patients: generated cases of the cross-validation.
        new: scans of the comparison afterwards.
        seeds: trainings per fold; an ensemble needs two.
    """
    require_same_call(folder / "call.json", {"patients": patients, "new": new})
    write_scans(folder / "source", patients, seed=0)
    write_scans(folder / "new", new, seed=1)
    store, table = folder / "store", folder / "crossvalidation"
    if not store.exists():
        prepare(folder / "source", store, training_config("demo", (), None).data, folds=FOLDS)
    crossvalidate(store, table, models=["unet"], config_names=["demo"], settings=SETTINGS, num_seeds=seeds)
    runs = {"single network": table / "demo/unet/seed-0/fold-0"}
    if seeds > 1:
        runs[f"ensemble of {FOLDS * seeds}"] = table / "demo/unet"
    arms = []
    for name, run in runs.items():
        artefact = folder / f"{name.replace(' ', '-')}.onnx"
        about = export_run(run, artefact, confidence=table, parity_cases=1)
        assert about.confidence is not None
        changes = list(CHANGES) if run.name == "fold-0" else ["as learned"]
        segmenter = Segmenter(artefact)
        rows = [row for change in changes for row in compare(segmenter, folder / "new", change)]
        arms.append(Arm(name, about.confidence, rows))
    return arms


def compare(segmenter: Segmenter, folder: Path, change: str) -> list[NewOrgan]:
    """Estimated and true Dice of every organ of the scans in a folder, after one of `CHANGES`."""
    rows = []
    for number, file in enumerate(sorted(folder.glob("*-src.nii.gz"))):
        volume = read_volume(file)
        changed = CHANGES[change](volume.data[0].astype(np.float32), np.random.default_rng(number))
        volume = replace(volume, data=np.ascontiguousarray(changed[None], dtype=np.float32))
        prepared = segmenter.prepare(volume)
        observed = ObservedCase(segmenter, segmenter.estimator, volume, prepared)
        indices = segmenter.predict_prepared(prepared, observers=observed.observers)
        findings = check_input(volume, segmenter.ranges, segmenter.spec.orientation)
        confidence = observed.confidence(indices, findings)
        assert confidence is not None
        mask = np.asarray(nib.Nifti1Image.from_filename(str(file).replace("-src", "-mask")).dataobj).astype(np.uint8)
        dice = dice_from_confusion(confusion(indices, mask[::-1] if change == MIRRORED else mask, len(CHAOS_MR)))
        case = file.name.partition("-")[0]
        for name, true in zip(CHAOS_MR.foreground, dice[1:], strict=True):
            rows.append(NewOrgan(change, case, confidence.review, name, float(true), confidence.organs[name]))
    return rows


def lines(arm: Arm) -> list[str]:
    """Patients left out, new scans, probabilities."""
    learned, check, calibration = arm.learned, arm.learned.check, arm.learned.calibration
    if check is None or calibration is None or learned.threshold is None:
        return [f"{arm.network}: {learned.describe()}"]
    changes = dict.fromkeys(one.change for one in arm.new)
    return [
        f"{arm.network}, {learned.num_patients} patients, poor is a Dice below {learned.threshold:.2f}",
        f"  patients left out: {check.describe()}; marked: {_percent(check.marked_of_poor)} of poor organs, "
        f"{_percent(check.marked_of_good)} of the others",
        f"  probabilities: temperature {calibration.temperature:.2f}, expected calibration error "
        f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after, patients left out",
        "  new scans                      true  estimated  error  in range  marked: poor organs  others  cases",
        *(_line([one for one in arm.new if one.change == change], learned.threshold) for change in changes),
    ]


def _line(rows: Sequence[NewOrgan], threshold: float) -> str:
    known = [(one.true, one.estimate) for one in rows if one.estimate.dice is not None]
    figures = [(true, estimate.dice, estimate.low, estimate.high) for true, estimate in known]
    true, estimated, low, high = np.array(figures, dtype=np.float64).T
    is_poor, is_marked = true < threshold, estimated < threshold
    cases = {one.case: one.review for one in rows}
    return (
        f"  {rows[0].change:29}  {true.mean():.2f}  {estimated.mean():9.2f}  {np.abs(true - estimated).mean():5.3f}  "
        f"{np.mean((low <= true) & (true <= high)):8.0%}  {f'{is_marked[is_poor].sum()} of {is_poor.sum()}':>19}  "
        f"{f'{is_marked[~is_poor].sum()} of {(~is_poor).sum()}':>8}  {sum(cases.values())} of {len(cases)}"
    )


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.0%}"


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=32, help="of the cross-validation")
    parser.add_argument("--new", type=int, default=16, help="scans to compare with")
    parser.add_argument("--seeds", type=int, default=2, help="trainings per fold")
    arguments = parser.parse_args()
    with running(sys.stdout):
        arms = measure(arguments.folder, arguments.patients, arguments.new, arguments.seeds)
    results = {
        "schema": 1,
        "environment": environment(),
        "settings": list(SETTINGS),
        "networks": [arm.to_json() for arm in arms],
    }
    write_text(arguments.folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    for arm in arms:
        print("\n".join(lines(arm)))


if __name__ == "__main__":
    main()
