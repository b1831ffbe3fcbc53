"""From the scans' hashes to the artefact's."""

from pathlib import Path

from attunet.store import Store
from attunet.system.atomic_files import sha256


def test_an_artefact_names_its_checkpoint_store_and_scans(attunet, run: Path, artefact: Path, small_store: Store) -> None:
    done = attunet("inspect", artefact, "--lineage")
    assert done.code == 0
    lines = [line.split()[:2] for line in done.out.splitlines()]
    assert lines[0] == ["artefact", sha256(artefact)]
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    assert lines[1] == ["checkpoint", sha256(checkpoint / "manifest.json")]
    assert lines[2] == ["store", sha256(small_store.path / "manifest.json")]
    training, _ = small_store.split(0)
    assert lines[3:] == [["scan", case.image_sha256] for case in small_store.cases if case.name in training]
    assert attunet("inspect", run, "--lineage").out.splitlines() == done.out.splitlines()[1:]


def test_a_store_has_no_lineage(attunet, small_store: Store) -> None:
    done = attunet("inspect", small_store.path, "--lineage")
    assert (done.code, "needs an artefact" in done.err) == (2, True)
