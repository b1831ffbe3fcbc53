"""`attunet inspect --lineage`: where a model comes from, by hashes: scans, store, run, artefact."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from attunet.errors import InputError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import load_artefact
from attunet.runs.run_folder import holds_runs

if TYPE_CHECKING:
    from attunet.runs.load_run import TrainedRun


def describe_lineage(path: Path) -> Iterator[str]:
    """Lines about the origin of an artefact, a run or an ensemble, the youngest first; InputError for other paths."""
    source: Artefact | TrainedRun
    if path.suffix == ".onnx":
        source, data = load_artefact(path)
        parent, version = source.parent, source.tools.get("attunet", "of an unknown version")
        yield f"artefact    {hashlib.sha256(data).hexdigest()}  {path.name}, exported with attunet {version}"
    elif path.is_dir() and holds_runs(path):
        from attunet.runs.ensemble import load_runs

        source = load_runs(path)
        lineage = source.lineage
        parent = {"name": lineage.parent, "sha256": lineage.sha256} if lineage else None
    else:
        raise InputError(f"{path}: --lineage needs an artefact (.onnx) or a run")
    checkpoints = source.checkpoint_sha256
    for number, digest in enumerate(checkpoints, 1):
        member = f"at step {source.step}" if len(checkpoints) == 1 else f"member {number} of {len(checkpoints)}"
        yield f"checkpoint  {digest}  {member}"
    if parent is not None:
        yield f"parent      {parent['sha256']}  {parent['name']}, the weights that the training started from"
    yield f"store       {source.store_sha256 or ('unknown' if len(checkpoints) == 1 else 'not one for all members')}"
    for case, digest in sorted(source.training_cases.items()):
        yield f"scan        {digest}  {case}"
