"""`attunet predict --server`: volumes sent to a server, label maps written here."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from attunet.errors import InputError, RunError
from attunet.export.serve.client import Client
from attunet.io.writers import suffixes_for
from attunet.launch.commands.predict import check_output
from attunet.sources.inputs import Input, find_inputs

logger = logging.getLogger(__name__)

AT_ONCE = 4  # scans on their way; the server decides how many it works on


def predict_remote(client: Client, model: str | None, source: Path, output: Path, *, dicom_seg: bool = False) -> None:
    """As `predict`, computed by a server: one volume into a file, or every volume of a folder into a folder.

    In a folder, finished cases are skipped and one that fails does not stop the others; RunError says at the end how
    many there were.
    """
    described = client.model(model)
    inputs = find_inputs(source, described["channels"])
    is_one = source.is_file() or inputs[0].files == (source,)
    check_output(source, output, suffixes_for(inputs[0].files) if is_one else None)
    if is_one:
        _segment(client, described["name"], inputs[0], output)
        return
    jobs = [(one, output / f"{one.name}{_suffix(one.files, dicom_seg)}") for one in inputs]
    waiting = [job for job in jobs if not job[1].exists()]
    with ThreadPoolExecutor(AT_ONCE, "send") as threads:
        failed = sum(threads.map(partial(_fails, client, described["name"]), waiting))
    logger.info("%d segmented, %d finished before, %d failed", len(waiting) - failed, len(jobs) - len(waiting), failed)
    if failed:
        raise RunError(f"{source}: {failed} of {len(jobs)} volumes could not be segmented")


def _fails(client: Client, model: str, job: tuple[Input, Path]) -> bool:
    try:
        job[1].parent.mkdir(parents=True, exist_ok=True)
        _segment(client, model, *job)
    except (InputError, RunError, OSError) as error:
        logger.error("%s", error)
        return True
    return False


def _segment(client: Client, model: str, scan: Input, output: Path) -> None:
    answer = client.segment(scan.files if len(scan.files) > 1 else scan.files[0], output, model=model)
    for finding in answer.findings:
        logger.warning("%s: %s [%s]", scan.files[0], finding["text"], finding["rule"])
    if answer.confidence is not None and answer.confidence.get("review"):
        logger.warning("%s: to be looked at: its estimated Dice is low, or the scan is unlike the training's", output)
    logger.info(
        "%s: %s", output, ", ".join(f"{name} {amount:.0f} {answer.unit}" for name, amount in answer.volumes.items())
    )


def _suffix(files: Sequence[Path], dicom_seg: bool) -> str:
    known = suffixes_for(files)
    return ".dcm" if dicom_seg and ".dcm" in known else known[0]
