"""`attunet inspect --lineage`: where a model comes from, by hashes: scans, store, run, artefact."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from attunet.errors import InputError
from attunet.export.artefact.artefact_file import load_artefact
from attunet.runs.run_folder import holds_runs
from attunet.system.atomic_files import sha256


def describe_lineage(path: Path) -> Iterator[str]:
    """Lines about the origin of an artefact, a run or an ensemble, the youngest first; InputError for other paths."""
    if path.suffix == ".onnx":
        about, _ = load_artefact(path)
        yield (
            f"artefact    {sha256(path)}  {path.name}, exported with attunet "
            f"{about.tools.get('attunet', 'of an unknown version')}"
        )
        yield from _lines(about.checkpoint_sha256, about.step, about.parent, about.store_sha256, about.training_cases)
    elif path.is_dir() and holds_runs(path):
        from attunet.runs.ensemble import load_runs

        run = load_runs(path)
        lineage = run.lineage
        parent = {"name": lineage.parent, "sha256": lineage.sha256} if lineage else None
        yield from _lines(run.checkpoint_sha256, run.step, parent, run.store_sha256, run.training_cases)
    else:
        raise InputError(f"{path}: --lineage needs an artefact (.onnx) or a run")


def _lines(
    checkpoints: tuple[str, ...],
    step: int,
    parent: Mapping[str, str] | None,
    store: str | None,
    cases: Mapping[str, str],
) -> Iterator[str]:
    for number, digest in enumerate(checkpoints, 1):
        yield (
            f"checkpoint  {digest}  "
            f"{f'at step {step}' if len(checkpoints) == 1 else f'member {number} of {len(checkpoints)}'}"
        )
    if parent is not None:
        yield f"parent      {parent['sha256']}  {parent['name']}, the weights that the training started from"
    yield f"store       {store or 'unknown'}"
    for case, digest in sorted(cases.items()):
        yield f"scan        {digest}  {case}"
