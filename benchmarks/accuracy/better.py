"""Planned changes of the recipe `chaos-cpu`, each judged leave-one-out against the plain recipe,
in a few minutes of one GPU.

`python -m attunet.benchmarks.accuracy.better STORE OUT --source CASES --minutes 4 --processes 8 --device cuda` trains
both networks with two seeds on every fold (one patient left out) for each arm of `attunet.benchmarks.accuracy.arms`,
several trainings at once, and judges, on the native grid of the source files after finishing, as
`attunet crossvalidate` does: each network alone, the ensemble of both networks and seeds (four members), and the
ensemble of four snapshots along each training. The store is one that `attunet prepare --config chaos-cpu` made; its own
folds do not count.

The arms and their reasons were fixed before anything was measured:

- plain: `chaos-cpu` as it is. Its ensembles average errors that are nearly independent between networks and seeds, less
  so along a training.
- 200 epochs: the loss still falls in the last third of 100 epochs.
- deep supervision: coarse levels get a gradient of their own, which fixes the left-right position of organs early.
- residual: residual encoder blocks of exactly the same parameters train better.
- 1 scan, 2 scans, with and without a start from a network trained on generated abdomens: anatomy is most of what few
  scans lack; the U-Net alone, 1500 steps, tested on all scans that it did not see. "all scans, generated": a small gain
  at most.

There is one planned analysis: for each arm the paired difference of mean Dice against the arm it is compared with,
averaged over networks and seeds for each case, its mean over the cases with its 95 % interval; an arm is kept where the
interval leaves out zero. The same for the ensembles of an arm against its single networks. Differences of one network
or organ are printed, and decide nothing.

OUT/results.json is written after every training, so that a run that is killed or out of time keeps its results; the
same call does what is left, and trains again only what an ensemble still needs. The order is that of worth: the plain
arm, one seed of every other arm, the next seed; `--arms` chooses some. `--rehearse` does everything in miniature on
generated cases, on any machine.
"""

import argparse
from pathlib import Path

from attunet.benchmarks.accuracy.arms import ARMS, FULL, Size
from attunet.benchmarks.accuracy.results import table
from attunet.benchmarks.accuracy.trainings import better
from attunet.config import load_config
from attunet.errors import InputError
from attunet.phantom import write_phantom
from attunet.preparation.prepare import prepare
from attunet.store import Store, open_store
from attunet.system.log_lines import forward_log

SMALL = ("model.base_width=4", "model.depth=3")
MINIATURE = Size(SMALL, epochs=0.4, steps=3, pretraining_steps=3, generated=3, reduce=4)


def rehearsal_store(folder: Path) -> Store:
    """A small store of six generated cases."""
    if not (folder / "source").exists():
        write_phantom(folder / "source", cases=6, seed=1, reduce=4)
    return prepare(folder / "source", folder / "store", load_config(None, ["data.size=64"]).data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="prepared with --config chaos-cpu; ignored with --rehearse")
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, help="the store's source files, if they moved")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", help=f"names, separated by semicolons, of: {'; '.join(arm.name for arm in ARMS)}")
    parser.add_argument("--rehearse", action="store_true", help="everything in miniature")
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.arms.split(";")] if arguments.arms else [arm.name for arm in ARMS]
    if unknown := sorted(set(names) - {arm.name for arm in ARMS}):
        parser.error(f"--arms: there is no arm {unknown[0]!r}")
    with forward_log(lambda line: print(line, flush=True)):
        try:
            store = rehearsal_store(arguments.out / "rehearsal") if arguments.rehearse else open_store(arguments.store)
        except InputError as error:
            parser.error(str(error))
        results = better(
            store,
            arguments.out,
            arms=[arm for arm in ARMS if arm.name in names],
            source=arguments.source,
            minutes=arguments.minutes,
            processes=arguments.processes,
            device=arguments.device,
            seeds=arguments.seeds,
            size=MINIATURE if arguments.rehearse else FULL,
        )
    print(table(results))


if __name__ == "__main__":
    main()
