"""Training with partial labels on generated cases: every organ is drawn in half of the training scans.

`python -m attunet.benchmarks.crossvalidation.partial_labels DIR` trains the same network four times with the same
number of steps: with all labels, with the marginal loss, with organs that were not drawn taken for background, and on
the completely drawn scans alone. Each is scored on the same test scans, whose labels are complete. Writes
DIR/results.json and prints a table.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import nibabel as nib
import numpy as np

from attunet.classes import CHAOS_MR
from attunet.config import Config, load_config
from attunet.fields import JsonObject
from attunet.metrics.results import MetricTable
from attunet.phantom import write_phantom
from attunet.preparation.prepare import prepare
from attunet.runs.run_folder import read_metrics
from attunet.splits import Splits
from attunet.store import Store
from attunet.system.atomic_files import write_text
from attunet.system.environment import Environment, environment
from attunet.system.log_lines import forward_log
from attunet.training.loop import train

ORGANS = CHAOS_MR.names[1:]
ARMS = ("all labels", "marginal loss", "not drawn is background", "complete scans alone")


class ArmRow(TypedDict):
    arm: str
    seed: int
    training_scans: int
    dice: MetricTable


class Results(TypedDict):
    """results.json. `drawn`: case -> its drawn organs."""

    schema: int
    environment: Environment
    config: dict[str, JsonObject]
    steps: int
    drawn: dict[str, list[str]]
    results: list[ArmRow]


def drawn_organs(number: int) -> list[str]:
    """Organs that are drawn in training scan `number`: every subset in turn,
    so that each organ is drawn in half of 16 scans.
    """
    return [organ for bit, organ in enumerate(ORGANS) if (number % 16) >> bit & 1]


def write_sources(
    folder: Path, num_training: int, num_test: int, seed: int
) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Write the sources of the arms.

    Returns:
        Arm -> folder of its source, and case -> drawn organs for the partially drawn training scans.
    """
    full = folder / "all"
    if not full.exists():
        write_phantom(full, cases=num_training + num_test, seed=seed)
    names = _names(full)
    drawn = {name: drawn_organs(number) for number, name in enumerate(names[:num_training])}
    hidden, complete = folder / "hidden", folder / "complete"
    for target in (hidden, complete):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    for name in names:
        organs = drawn.get(name, list(ORGANS))
        for target in (complete, hidden) if len(organs) == len(ORGANS) else (hidden,):
            shutil.copy(full / f"{name}-src.nii.gz", target)
            _hide(full / f"{name}-mask.nii.gz", target / f"{name}-mask.nii.gz", organs)
    partial = {name: organs for name, organs in drawn.items() if len(organs) < len(ORGANS)}
    return dict(zip(ARMS, (full, hidden, hidden, complete), strict=True)), partial


def _hide(mask: Path, target: Path, organs: Sequence[str]) -> None:
    image = nib.Nifti1Image.from_filename(mask)
    labels = np.asarray(image.dataobj)
    values = [value for name, value in zip(CHAOS_MR.names, CHAOS_MR.values, strict=True) if name in organs]
    kept = np.where(np.isin(labels, values), labels, 0).astype(labels.dtype)
    nib.save(nib.Nifti1Image(kept, image.affine, image.header), target)


def compare(
    folder: Path, settings: Sequence[str], steps: int, num_training: int, num_test: int, num_seeds: int
) -> Results:
    """Trains and scores all arms; returns the content of results.json.

    Args:
        settings: `section.field=value` of all trainings.

    Example:
        >>> compare(Path("out"), ["optim.batch_size=8"], 1500, 16, 6, 1)["results"][0]["arm"]  # doctest: +SKIP
        'all labels'
    """
    sources, partial = write_sources(folder / "sources", num_training, num_test, seed=0)
    write_text(folder / "labelled.json", json.dumps(partial))
    config, test = load_config(None, settings), _names(sources["all labels"])[num_training:]
    batch = config.optim.batch_size
    assert batch != "auto"
    rows: list[ArmRow] = []
    for arm, source in sources.items():
        store = _prepare(folder, arm, source, config, test)
        training = store.split("all")[0]
        samples = sum(store.case(case).num_slices for case in training)
        for seed in range(num_seeds):
            run = folder / "runs" / _slug(arm) / f"seed-{seed}"
            own = [
                f"optim.epochs={(steps - 0.5) * batch / samples}",
                f"run.seed={seed}",
                "run.validate_every_epochs=1e6",
            ]
            train(store.path, run, load_config(None, [*settings, *own]), fold="all", resume="auto")
            dice = next(row["dice"] for row in read_metrics(run) if row["event"] == "native")
            rows.append({"arm": arm, "seed": seed, "training_scans": len(training), "dice": dice})
    return {
        "schema": 1,
        "environment": environment(),
        "config": config.to_json(),
        "steps": steps,
        "drawn": partial,
        "results": rows,
    }


def _prepare(folder: Path, arm: str, source: Path, config: Config, test: Sequence[str]) -> Store:
    splits = folder / "splits" / f"{_slug(arm)}.json"
    splits.parent.mkdir(exist_ok=True)
    training = [name for name in _names(source) if name not in test]
    write_text(splits, json.dumps(Splits((_patients(training),), _patients(test)).to_json()))
    labelled = folder / "labelled.json" if arm == "marginal loss" else None
    return prepare(source, folder / "stores" / _slug(arm), config.data, splits_file=splits, labelled_file=labelled)


def _names(source: Path) -> list[str]:
    return sorted(path.name.removesuffix("-src.nii.gz") for path in source.glob("*-src.nii.gz"))


def _slug(arm: str) -> str:
    return arm.replace(" ", "-")


def _patients(cases: Sequence[str]) -> tuple[str, ...]:
    return tuple(case.partition("-")[0] for case in cases)


def table(results: Results) -> str:
    """Mean Dice of each arm, over seeds and test scans, and of each organ."""
    lines = []
    for arm in ARMS:
        rows = [row for row in results["results"] if row["arm"] == arm]
        means = [row["dice"]["mean"] or 0.0 for row in rows]
        organs = ", ".join(
            f"{organ} {np.mean([row['dice']['per_class'][organ] or 0 for row in rows]):.3f}" for organ in ORGANS
        )
        scans = rows[0]["training_scans"]
        lines.append(
            f"{arm:26} {scans:3} scans  Dice {np.mean(means):.4f} (seeds {', '.join(f'{m:.4f}' for m in means)}): "
            f"{organs}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", type=int, default=16, help="training scans, a multiple of 16")
    parser.add_argument("--test", type=int, default=6, help="test scans")
    parser.add_argument("--steps", type=int, default=1500, help="of each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    arguments = parser.parse_args()
    folder, settings = arguments.folder, ["optim.batch_size=8", *arguments.settings]
    with forward_log(print):
        results = compare(folder, settings, arguments.steps, arguments.training, arguments.test, arguments.seeds)
    write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
