"""`attunet predict`: volumes in, label maps on their own grid out, with a run or an artefact."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attunet.decisions import Choices
from attunet.errors import InputError, RunError
from attunet.export.load_model import load_model
from attunet.export.runtime.audit import Audit, CaseAudit
from attunet.export.runtime.backends.open_backend import GPU_PROVIDERS
from attunet.export.runtime.case_output import confidence_file, map_file
from attunet.export.runtime.cohort import CASE_ERRORS, Job, Work, predict_cohort
from attunet.export.runtime.confidence import check_confidence, estimator_of, write_tables
from attunet.export.runtime.observed_case import ESTIMATES, UNCERTAINTY, ConfidenceOptions
from attunet.export.runtime.origin import TABLES, check_tables, origin_file
from attunet.export.runtime.segmenter import Segmenter
from attunet.io.dicom.organ_codes import Code
from attunet.io.readers import NOTHING
from attunet.io.writers import write_map
from attunet.launch.commands.label_maps import check_codes, check_output, label_maps, warn_left_out, writing_label_maps
from attunet.launch.launcher import local_gpu, local_threads, shard_of
from attunet.launch.options import check_computes
from attunet.privacy.audit_log import AuditLog
from attunet.privacy.pseudonyms import claim, pseudonyms
from attunet.sources.case_files import without_names
from attunet.sources.inputs import find_inputs
from attunet.sources.pseudonymise import numbered_inputs
from attunet.volumes.model import Model, PreparedVolume
from attunet.volumes.predict import MAX_MEGAPIXELS, attention_volumes
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.volume import Volume, amounts_in_words, class_amounts

logger = logging.getLogger(__name__)


def predict(
    model: Path,
    source: Path,
    output: Path,
    *,
    attention: bool = False,
    dicom_seg: bool = False,
    provider: str = "cpu",
    device: str = "cpu",
    choices: Choices = NOTHING,
    codes: Mapping[str, Code] | None = None,
    max_megapixels: int = MAX_MEGAPIXELS,
    audit: Path | None = None,
    user: str | None = None,
    public_key: Path | None = None,
    tf32: bool = False,
    pseudonymise: Path | None = None,
    confidence: ConfidenceOptions = ESTIMATES,
    confidence_required: bool = False,
) -> None:
    """Segment a volume into the file `output`, or every volume below a folder into the folder `output`.

    In a folder, finished cases are skipped and failed ones do not stop the others, but raise RunError at the end. Under
    `accelerate launch` or in a SLURM array each process segments its share of the cases. The arguments are the options
    of `attunet predict`.

    Example:
        >>> predict(Path("model.onnx"), Path("scans"), Path("labels"), provider="cuda")  # doctest: +SKIP
    """
    predictor = _load_model(model, provider, device, public_key, tf32)
    if audit is not None and audit.resolve() in (model.resolve(), source.resolve(), output.resolve()):
        raise InputError(f"{audit}: the audit log must be another file than the model, the input and the output")
    if user is not None and audit is None:
        raise InputError("--user: is for the audit log, which needs --audit LOG")
    log = _auditor(predictor, model, audit, user) if audit else None
    also = _attention_writer(predictor, model) if attention else None
    check_confidence(predictor, model, confidence, required=confidence_required)
    if pseudonymise and (dicom_seg or output.suffix.lower() == ".dcm"):
        raise InputError(
            f"{output}: a DICOM SEG has the patient's name from its series: choose .nii.gz, or leave out --pseudonymise"
        )
    work = Work(predictor, also, max_megapixels, log, confidence)
    with pseudonyms(pseudonymise, [output]) as names:
        note = partial(warn_left_out, source, is_hidden=names is not None)
        with without_names(source, names is not None, "its volumes cannot be found; `attunet inspect` on it says why"):
            inputs = find_inputs(source, predictor.spec.num_channels, choices, channels=predictor.channels, note=note)
        is_one = check_output(source, inputs, output)
        if names:
            inputs = numbered_inputs(inputs, source.parent if is_one else source, names)
        maps = [f"attention-{number}" for number in range(1, predictor.num_gates + 1)] if attention else []
        maps += [UNCERTAINTY] if confidence.uncertainty else []
        files = label_maps(inputs, output, is_one=is_one, dicom_seg=dicom_seg)
        if names and not is_one:  # a scan may be called as the label map of another is
            place = Path(names.hide(str(output)))
            names.remember({str(file): str(place / file.name) for file in files}, are_whole=True)
        if codes is not None:
            check_codes(codes, predictor.classes.foreground, files)
        jobs = [
            Job(one, labels, codes, tuple(map_file(labels, kind) for kind in maps))
            for one, labels in zip(inputs, files, strict=True)
        ]
        _check_files(jobs, output, audit)
        if is_one:
            _predict_one(work, jobs[0])
        else:
            _predict_folder(work, source, output, jobs, names.claim if names else claim)


def _check_files(jobs: Sequence[Job], output: Path, audit: Path | None) -> None:
    """Raises InputError where a case's file would replace an input, another case's label map, or the audit log."""
    tables = [output / name for name in TABLES]
    kept = {path.resolve() for job in jobs for path in (job.write, *job.input.files)}
    for job in jobs:
        if taken := next((path for path in job.maps if path.resolve() in kept), None):
            raise InputError(
                f"{taken}: would be a map of {job.file}, and is an input or the label map of another: rename that one"
            )
        files = (job.write, origin_file(job.write), confidence_file(job.write), *job.maps)
        if audit is not None and audit.resolve() in {path.resolve() for path in (*files, *tables)}:
            raise InputError(f"{audit}: the audit log must be another file than those of {job.file}")


def _load_model(path: Path, provider: str, device: str, public_key: Path | None, tf32: bool) -> Model:
    """The model on this process's GPU, or with its share of the CPU threads, as `accelerate launch` divides them."""
    if not path.exists():
        raise InputError(f"{path}: no such run or artefact")
    check_computes([path], [provider], device)
    return load_model(
        path,
        provider=provider,
        device=f"cuda:{local_gpu()}" if device == "cuda" else device,
        num_threads=local_threads(),
        provider_options=_provider_options(provider, tf32),
        public_key=public_key,
    )


def _provider_options(provider: str, tf32: bool) -> dict[str, int] | None:
    if tf32 and provider != "cuda":
        raise InputError(f"--tf32: is an arithmetic of the provider cuda, got --provider {provider}")
    if provider not in GPU_PROVIDERS:
        return None
    return {"device_id": local_gpu(), **({"use_tf32": 1} if tf32 else {})}


def _auditor(predictor: Model, model: Path, log: Path, user: str | None) -> CaseAudit:
    if not isinstance(predictor, Segmenter):
        raise InputError(f"{model}: --audit needs an artefact; a run is no finished model")
    return CaseAudit(Audit(AuditLog(log), predictor.sha256, predictor.signature, user))


def _attention_writer(predictor: Model, model: Path) -> Callable[[Volume, PreparedVolume, Path], None]:
    if not predictor.num_gates:
        raise InputError(
            f"{model}: --attention needs a model with attention gates (an artefact: exported with its maps)"
        )

    def write(volume: Volume, prepared: PreparedVolume, labels: Path) -> None:
        assert isinstance(prepared, VolumeSlices), "a whole artefact has no gates"
        for number, values in enumerate(attention_volumes(predictor.attention, prepared), 1):
            write_map(map_file(labels, f"attention-{number}"), values, volume)

    return write


def _predict_one(work: Work, job: Job) -> None:
    try:
        try:
            read = work.read(job)
        except InputError as error:
            raise (error if str(job.file) in str(error) else InputError(f"{job.file}: {error}")) from None
        case = work.segment(job, read)
        estimates = work.write(job, case)
    except CASE_ERRORS:
        work.fail(job)
        raise
    unit, amounts = class_amounts(case.indices, work.model.classes.foreground, case.volume)
    logger.info(f"{job.write}: {amounts_in_words(amounts, unit)}")
    if estimates is not None:
        logger.info(f"{confidence_file(job.write)}: {estimates.describe()}")


def _predict_folder(
    work: Work, source: Path, output: Path, jobs: Sequence[Job], claim_folder: Callable[[Path], None]
) -> None:
    shard, estimator = shard_of(), estimator_of(work.model)
    with writing_label_maps(output, shard):
        if estimator is not None:
            check_tables(output, work.model.sha256)
        claim_folder(output)
        outcome = predict_cohort(work, jobs, shard=shard)
        marked = write_tables(output, work.model) if output.is_dir() else 0  # of what all processes have finished
        if estimator is not None and (table := output / TABLES[1]).exists():
            advice = f"look at all cases, it cannot tell: {estimator.cannot}"
            logger.info(f"{table}: {advice if estimator.cannot else f'{marked} cases to be looked at'}")
    logger.info(str(outcome))
    if work.confidence.threshold is not None and outcome.skipped:
        logger.warning(f"--review-below: the {outcome.skipped} finished before keep the estimates that they have")
    for _, reason in outcome.failed:  # logged before, possibly thousands of lines ago
        logger.info(f"failed: {reason}")
    if outcome.failed:
        raise RunError(f"{source}: {len(outcome.failed)} of {len(jobs)} volumes could not be segmented")
