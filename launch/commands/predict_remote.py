"""`attunet predict --server`: volumes sent to a server, label maps written here."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from attunet.errors import RunError, one_line
from attunet.export.runtime.cohort import CASE_ERRORS
from attunet.export.runtime.origin import clear_tables, is_finished
from attunet.export.serve.client import Client
from attunet.export.serve.formats import ModelDescription
from attunet.launch.commands.label_maps import check_output, label_maps, warn_left_out, writing_label_maps
from attunet.launch.launcher import shard_of
from attunet.privacy.pseudonyms import claim
from attunet.sources.input import Input
from attunet.sources.inputs import find_inputs
from attunet.volumes.volume import amounts_in_words

logger = logging.getLogger(__name__)

AT_ONCE = 4  # scans being sent; the server decides how many it works on


def predict_remote(client: Client, model: str | None, source: Path, output: Path, *, dicom_seg: bool = False) -> None:
    """As `predict`, computed by a server: one volume into a file, or every volume of a folder into a folder.

    In a folder, finished and failed cases and several processes are treated as by `predict`.

    Example:
        >>> predict_remote(client, None, Path("scans"), Path("labels"), dicom_seg=True)  # doctest: +SKIP
    """
    described = client.model(model)
    inputs = find_inputs(
        source, described["channels"], channels=described["channel_names"], note=partial(warn_left_out, source)
    )
    is_one = check_output(source, inputs, output)
    jobs = list(zip(inputs, label_maps(inputs, output, is_one=is_one, dicom_seg=dicom_seg), strict=True))
    if is_one:
        inputs[0].check()
        _segment(client, described, inputs[0], output)
        return
    number, count = shard_of()
    jobs = jobs[number::count]
    with (
        writing_label_maps(output, (number, count)),
        ThreadPoolExecutor(AT_ONCE, "send") as threads,
        ExitStack() as after_errors,
    ):
        after_errors.callback(client.close)  # after a signal too: the threads would go on with their requests
        claim(output)
        sha256 = described["sha256"]
        waiting = [(one, labels) for one, labels in jobs if not is_finished(labels, one, sha256)]
        if waiting:
            clear_tables(output, sha256)
        failed = sum(threads.map(partial(_fails, client, described), waiting))
        after_errors.pop_all()
    logger.info(f"{len(waiting) - failed} segmented, {len(jobs) - len(waiting)} finished before, {failed} failed")
    if failed:
        raise RunError(f"{source}: {failed} of {len(jobs)} volumes could not be segmented")


def _fails(client: Client, model: ModelDescription, job: tuple[Input, Path]) -> bool:
    scan, labels = job
    try:
        scan.check()
        _segment(client, model, scan, labels)
    except CASE_ERRORS as error:
        text = one_line(error, None)
        logger.error(text if str(scan.files[0]) in text or str(labels) in text else f"{scan.files[0]}: {text}")
        return True
    return False


def _segment(client: Client, model: ModelDescription, scan: Input, output: Path) -> None:
    answer = client.segment(scan.files, output, model=model["name"], model_sha256=model["sha256"])
    for decision in answer.decisions:
        logger.info(f"decided: {scan.files[0]}: {decision['text']} [{decision['rule']}]")
    for finding in answer.findings:
        logger.warning(f"{scan.files[0]}: {finding['text']} [{finding['rule']}]")
    if answer.confidence is not None and answer.confidence.get("review"):
        logger.warning(f"{output}: to be looked at: its estimated Dice is low, or the scan is unlike the training's")
    logger.info(f"{output}: {amounts_in_words(answer.volumes, answer.unit)}")
