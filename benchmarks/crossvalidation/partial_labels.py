"""Training with partial labels: every organ is drawn in half of the training scans.

`python -m attunet.benchmarks.crossvalidation.partial_labels DIR` trains the same network with all labels, with the
marginal loss, with organs that were not drawn taken for background, and on fewer scans with all labels. A pass over
partial labels shows each organ half as often, so both losses are also trained for twice the steps. Every training is
scored on the same test scans, whose labels are complete: on 16 generated scans to train on and 6 to test, or with
`--source FOLDER` on CHAOS scans (NAME-src.nii.gz, NAME-mask.nii.gz), each left out once and the others trained on.
Writes DIR/results.json after every training and prints a table; a rerun continues.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.benchmarks.evaluation.results_table import Json, aligned
from attunet.benchmarks.program import add_settings, program_parser, require_same_call, running
from attunet.classes import CHAOS_MR
from attunet.config import Config, load_config
from attunet.metrics.significance import compare_paired
from attunet.phantom import write_phantom
from attunet.preparation.prepare import prepare
from attunet.runs.run_folder import read_metrics
from attunet.sources.splits import Splits
from attunet.store import Store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.training.loop import train

ORGANS = CHAOS_MR.foreground
TRAINING_SCANS, TEST_SCANS = 16, 6
SUBSETS_OF_FEW = (0b1111, 0b0011, 0b1100, 0b0101, 0b1010)  # of ORGANS, see `drawn_organs`


@dataclass(frozen=True)
class Arm:
    name: str  # in the table
    # Folder of scans: with "all" labels, labels "hidden" in part, the "complete" ones of these, "half" of all
    source: str
    is_marginal: bool = False  # the training gets the list of drawn organs
    steps_factor: int = 1


ARMS = (
    Arm("all labels", "all"),
    Arm("all labels, twice the steps", "all", steps_factor=2),
    Arm("marginal loss", "hidden", is_marginal=True),
    Arm("marginal loss, twice the steps", "hidden", is_marginal=True, steps_factor=2),
    Arm("half of the scans, all labels", "half"),
    Arm("not drawn is background", "hidden"),
    Arm("complete scans alone", "complete"),
)


def drawn_organs(number: int, num_training: int) -> list[str]:
    """Organs that are drawn in training scan `number`. Of 16 scans, every subset in turn: each organ is drawn in half
    of them. Of fewer, subsets with each organ in three of the first five; the first scan is complete.
    """
    subset = number % 16 if num_training >= 16 else SUBSETS_OF_FEW[number % len(SUBSETS_OF_FEW)]
    return [organ for bit, organ in enumerate(ORGANS) if subset >> bit & 1]


def write_sources(folder: Path, full: Path, training: Sequence[str], test: Sequence[str]) -> dict[str, list[str]]:
    """Write the folders that arms name as their source, of the scans in `full`; returns case -> drawn organs of the
    partially drawn training scans.
    """
    drawn = {name: drawn_organs(number, len(training)) for number, name in enumerate(training)}
    shutil.rmtree(folder, ignore_errors=True)
    for target in ("all", "hidden", "complete", "half"):
        (folder / target).mkdir(parents=True)
    for number, name in enumerate([*training, *test]):
        organs = drawn.get(name, list(ORGANS))
        _copy(full, folder / "all", name, ORGANS)
        _copy(full, folder / "hidden", name, organs)
        if len(organs) == len(ORGANS):
            _copy(full, folder / "complete", name, organs)
        if number % 2 == 0 or name in test:
            _copy(full, folder / "half", name, ORGANS)
    return {name: organs for name, organs in drawn.items() if len(organs) < len(ORGANS)}


def _cases(source: Path) -> list[str]:
    return sorted(path.name.removesuffix("-src.nii.gz") for path in source.glob("*-src.nii.gz"))


def _copy(source: Path, target: Path, name: str, organs: Sequence[str]) -> None:
    """Copy a case with some of its organs drawn."""
    shutil.copy(source / f"{name}-src.nii.gz", target)
    image = nib.Nifti1Image.from_filename(source / f"{name}-mask.nii.gz")
    labels = np.asarray(image.dataobj)
    values = [value for name, value in zip(CHAOS_MR.names, CHAOS_MR.values, strict=True) if name in organs]
    visible = np.where(np.isin(labels, values), labels, 0).astype(labels.dtype)
    nib.save(nib.Nifti1Image(visible, image.affine, image.header), target / f"{name}-mask.nii.gz")


def compare(
    folder: Path,
    settings: Sequence[str],
    *,
    steps: int,
    seeds: int,
    scans_seed: int = 0,
    source: Path | None = None,
) -> Json:
    """Train and score all arms, one fold after the other and then the next seed; writes and returns the content of
    results.json. settings: `section.field=value` of all trainings; steps: of the shortest; other arguments are the
    program's options.

    Example:
        >>> compare(Path("out"), ["model.base_width=8"], steps=998, seeds=3, scans_seed=0)  # doctest: +SKIP
    """
    call = {"steps": steps, "scans_seed": scans_seed, "settings": list(settings), "source": str(source or "")}
    require_same_call(folder / "call.json", call)
    full = source or folder / "generated"
    if not full.exists():
        write_phantom(full, cases=TRAINING_SCANS + TEST_SCANS, seed=scans_seed)
    names, config = _cases(full), load_config(None, settings)
    tests = [names[TRAINING_SCANS:]] if source is None else [[name] for name in names]
    about = {"schema": 1, "environment": environment(), "config": config.to_json()}
    results: Json = {**about, "steps": steps, "drawn": [], "results": []}
    for fold, test in enumerate(tests):
        training = [name for name in names if name not in test]
        results["drawn"].append(write_sources(folder / f"fold-{fold}" / "sources", full, training, test))
    stores = {
        (fold, arm.name): _prepare(folder / f"fold-{fold}", arm, config, test, results["drawn"][fold])
        for fold, test in enumerate(tests)
        for arm in ARMS
    }
    for seed, (fold, _), arm in product(range(seeds), enumerate(tests), ARMS):
        own_steps = steps * arm.steps_factor
        row = _train(folder / f"fold-{fold}", arm, stores[fold, arm.name], settings, own_steps, seed)
        results["results"].append({**row, "fold": fold})
        write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    return results


def _train(folder: Path, arm: Arm, store: Store, settings: Sequence[str], steps: int, seed: int) -> Json:
    run = folder / "runs" / arm.name.replace(",", "").replace(" ", "-") / f"seed-{seed}"
    cases = store.split("all")[0]
    batch = load_config(None, settings).optim.batch_size
    assert batch != "auto"
    epochs = (steps - 0.5) * batch / sum(store.case(case).num_slices for case in cases)
    own = [f"optim.epochs={epochs}", f"run.seed={seed}", "run.validate_every_epochs=1e6"]
    train(store.path, run, load_config(None, [*settings, *own]), fold="all", resume="auto")
    dice = next(row["dice"] for row in read_metrics(run) if row["event"] == "native")
    return {"arm": arm.name, "seed": seed, "steps": steps, "training_scans": len(cases), "dice": dice}


def _prepare(folder: Path, arm: Arm, config: Config, test: Sequence[str], drawn: Mapping[str, list[str]]) -> Store:
    name = f"{arm.source}-marginal" if arm.is_marginal else arm.source
    source, splits, labelled = folder / "sources" / arm.source, folder / f"splits-{name}.json", folder / "labelled.json"
    training = sorted(set(_cases(source)) - set(test))
    write_text(splits, json.dumps(Splits((_patients(training),), _patients(test)).to_json()))
    write_text(labelled, json.dumps(drawn))
    labels = labelled if arm.is_marginal else None
    return prepare(source, folder / "stores" / name, config.data, splits_file=splits, labelled_file=labels)


def _patients(cases: Sequence[str]) -> tuple[str, ...]:
    return tuple(case.partition("-")[0] for case in cases)


def table(results: Json) -> str:
    """Mean Dice of each arm over seeds and test scans, its paired difference from all labels, and Dice by organ."""
    reference = case_means(results, ARMS[0].name)
    cells = [["training", "scans", "steps", "Dice", "difference", "by seed", *ORGANS]]
    for name in dict.fromkeys(row["arm"] for row in results["results"]):
        rows = [row for row in results["results"] if row["arm"] == name]
        own, difference = case_means(results, name), ""
        if name != ARMS[0].name and reference.keys() == own.keys():
            tested = compare_paired(reference, own, {case: case for case in own}, names=(ARMS[0].name, name))
            low, high = tested.ci95 or (np.nan, np.nan)
            difference = f"{tested.difference:+.3f} ({low:+.3f} to {high:+.3f})"
        seeds = ", ".join(
            f"{np.mean([r['dice']['mean'] or 0 for r in rows if r['seed'] == seed]):.3f}"
            for seed in dict.fromkeys(r["seed"] for r in rows)
        )
        organs = [f"{np.mean([row['dice']['per_class'][organ] or 0 for row in rows]):.3f}" for organ in ORGANS]
        size = [str(rows[0]["training_scans"]), str(rows[0]["steps"])]
        cells.append([name, *size, f"{np.mean(list(own.values())):.3f}", difference, seeds, *organs])
    return aligned(cells)


def case_means(results: Json, arm: str) -> dict[str, float]:
    """Dice of each test scan, the mean over organs and seeds; an organ without a value counts as 0."""
    scores: dict[str, list[float]] = {}
    for row in results["results"]:
        for case, dice in row["dice"]["per_case"].items() if row["arm"] == arm else ():
            scores.setdefault(case, []).append(float(np.mean([value or 0 for value in dice.values()])))
    return {case: float(np.mean(own)) for case, own in scores.items()}


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1500, help="of the trainings that are not longer")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each arm")
    parser.add_argument("--scans-seed", type=int, default=0, help="of the generated scans: another number makes others")
    parser.add_argument("--source", type=Path, help="folder of CHAOS scans, instead of generated ones")
    add_settings(parser)
    options = vars(parser.parse_args())
    settings = ["optim.batch_size=8", *options.pop("settings")]
    with running(sys.stdout):
        results = compare(options.pop("folder"), settings, **options)
    print(table(results))


if __name__ == "__main__":
    main()
