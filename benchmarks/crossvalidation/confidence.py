"""Estimates of Dice on generated cases of varying quality, checked on patients left out and on new scans.

`python -m attunet.benchmarks.crossvalidation.confidence DIR` writes generated abdomens with noise drawn widely,
cross-validates a small network on them, learns the estimator from the held-out cases for a single network and for an
ensemble, and compares its estimates with the true Dice of new scans, through the exported artefacts: scans like the
learned ones, and changed ones. Writes DIR/results.json and prints a table; the same call continues a folder.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from attunet.benchmarks.crossvalidation.crossvalidate import crossvalidate
from attunet.benchmarks.evaluation.results_table import Json, aligned
from attunet.benchmarks.program import make_once, program_parser, running
from attunet.classes import CHAOS_MR
from attunet.confidence.estimator import Estimator
from attunet.export.build.export_run import export_run
from attunet.export.runtime.observed_case import ObservedCase
from attunet.export.runtime.segmenter import Segmenter
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
PATIENTS, NEW_SCANS = 32, 16
FOLDS, SEEDS = 4, 2  # an ensemble learns from the seeds of a fold


def write_scans(folder: Path, *, cases: int, seed: int) -> None:
    """Writes generated cases at half the resolution, each with its own amount of Rician noise."""
    write_phantom(folder, cases=cases, seed=seed, reduce=2)
    for number, file in enumerate(sorted(folder.glob("*-src.nii.gz"))):
        rng = np.random.default_rng([seed, number, 1])
        image = nib.Nifti1Image.from_filename(file)
        values = np.asarray(image.dataobj).astype(np.float32)
        noisy = np.round(with_noise(values, np.exp(rng.uniform(*np.log(NOISE))), rng)).astype(np.int16)
        nib.save(nib.Nifti1Image(noisy, image.affine, image.header), file)


def with_noise(image: np.ndarray, deviations: float, rng: np.random.Generator) -> np.ndarray:
    """The image with Rician noise, in standard deviations of the image."""
    noise = np.float32(image.std() * deviations)
    real, imaginary = (noise * rng.standard_normal(image.shape, np.float32) for _ in range(2))
    return np.hypot(image + real, imaginary)


@dataclass(frozen=True, eq=False)
class Arm:
    """A network, what was learned for it, and a row for each organ of the new scans."""

    network: str
    learned: Estimator
    new: list[Json]


def measure(folder: Path) -> list[Arm]:
    make_once(folder / "source", partial(write_scans, cases=PATIENTS, seed=0))
    make_once(folder / "new", partial(write_scans, cases=NEW_SCANS, seed=1))
    store, table = folder / "store", folder / "crossvalidation"
    prepare(folder / "source", store, training_config("demo", (), None).data, folds=FOLDS)
    crossvalidate(store, table, models=["unet"], config_names=["demo"], settings=SETTINGS, num_seeds=SEEDS)
    single, ensemble = table / "demo/unet/seed-0/fold-0", table / "demo/unet"
    return [
        _learn_and_compare("single network", single, folder, list(CHANGES)),
        _learn_and_compare(f"ensemble of {FOLDS * SEEDS}", ensemble, folder, ["as learned"]),
    ]


def _learn_and_compare(network: str, run: Path, folder: Path, changes: Sequence[str]) -> Arm:
    artefact = folder / f"{network.replace(' ', '-')}.onnx"
    learned = export_run(run, artefact, confidence=folder / "crossvalidation", parity_cases=1).confidence
    assert learned is not None
    segmenter = Segmenter(artefact)
    return Arm(network, learned, [row for change in changes for row in compare(segmenter, folder / "new", change)])


def compare(segmenter: Segmenter, folder: Path, change: str) -> list[Json]:
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
        about = {"change": change, "case": file.name.partition("-")[0], "review": confidence.review}
        for name, true in zip(CHAOS_MR.foreground, dice[1:], strict=True):
            rows.append({**about, "organ": name, "true": float(true), "estimate": asdict(confidence.organs[name])})
    return rows


def table(arm: Arm) -> str:
    """The description of what was learned, and a row for each change of the new scans."""
    learned, check = arm.learned, arm.learned.check
    lines = [f"{arm.network}: {learned.describe()}"]
    if check is None or learned.threshold is None:
        return lines[0]
    poor, good = ("none" if share is None else f"{share:.0%}" for share in (check.marked_of_poor, check.marked_of_good))
    marked = f"of patients left out {poor} are marked, {good} of others"
    lines.append(f"poor is a Dice below {learned.threshold:.2f}; {marked}")
    header = ["new scans", "true", "estimated", "error", "in range", "poor organs marked", "others", "cases"]
    changes = dict.fromkeys(row["change"] for row in arm.new)
    cells = [_cells([row for row in arm.new if row["change"] == change], learned.threshold) for change in changes]
    return "\n".join([*lines, aligned([header, *cells])])


def _cells(rows: Sequence[Json], threshold: float) -> list[str]:
    known = [row for row in rows if row["estimate"]["dice"] is not None]
    true = np.array([row["true"] for row in known])
    estimated, low, high = (np.array([row["estimate"][name] for row in known]) for name in ("dice", "low", "high"))
    is_poor, is_marked = true < threshold, estimated < threshold
    cases = {row["case"]: row["review"] for row in rows}
    return [
        rows[0]["change"],
        f"{true.mean():.2f}",
        f"{estimated.mean():.2f}",
        f"{np.abs(true - estimated).mean():.3f}",
        f"{np.mean((low <= true) & (true <= high)):.0%}",
        f"{is_marked[is_poor].sum()} of {is_poor.sum()}",
        f"{is_marked[~is_poor].sum()} of {(~is_poor).sum()}",
        f"{sum(cases.values())} of {len(cases)}",
    ]


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with running(sys.stdout):
        arms = measure(folder)
    networks = [{"network": arm.network, "learned": arm.learned.to_json(), "new": arm.new} for arm in arms]
    results = {"schema": 1, "environment": environment(), "settings": list(SETTINGS), "networks": networks}
    write_text(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    for arm in arms:
        print(table(arm))


if __name__ == "__main__":
    main()
