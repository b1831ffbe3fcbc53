"""`attunet predict`: volumes in, label maps on their own grid out, with a run or an artefact."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from attunet.classes import Classes
from attunet.confidence.estimate import CaseConfidence
from attunet.decisions import Choices
from attunet.errors import Finding, InputError, RunError
from attunet.export.load_model import load_model
from attunet.export.runtime.audit import Audit, hash_of_files
from attunet.export.runtime.cohort import Finished, Job, predict_cohort, read_prepared
from attunet.export.runtime.confidence import check_confidence, estimator_of, write_tables
from attunet.export.runtime.observed_case import ConfidenceOptions, ObservedCase, confidence_file
from attunet.export.runtime.segmenter import Segmenter
from attunet.io.dicom.organ_codes import Code
from attunet.io.readers import NOTHING, stem_of
from attunet.io.writers import suffixes_for, write_labels, write_map
from attunet.launch.launcher import local_gpu, local_threads, shard_of
from attunet.sources.inputs import find_inputs
from attunet.sources.pseudonymise import numbered_inputs
from attunet.system.atomic_files import sha256
from attunet.system.audit_log import AuditLog
from attunet.system.lock import writing
from attunet.system.pseudonyms import pseudonyms
from attunet.volumes.attention import attention_volumes
from attunet.volumes.model import Model
from attunet.volumes.predict import MAX_MEGAPIXELS
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.volume import Volume

logger = logging.getLogger(__name__)

TAKE_ESTIMATES = ConfidenceOptions()  # where the model can give them

Also = Callable[[Volume, Path], None]  # writes other maps of a volume beside its label map


@dataclass(frozen=True)
class AuditOptions:
    """The audit log's file, and who asks."""

    path: Path
    user: str | None = None


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
    audit: AuditOptions | None = None,
    public_key: Path | None = None,
    tf32: bool = False,
    pseudonymise: Path | None = None,
    confidence: ConfidenceOptions = TAKE_ESTIMATES,
    confidence_required: bool = False,
) -> None:
    """Segments the volume `source` into the file `output`, or every volume below the folder `source` into the folder
    `output`.

    In a folder, finished cases are skipped, and a file that cannot be read is reported and does not stop the others.
    Under `accelerate launch` or in a SLURM array each process segments its share of the cases.

    Args:
        attention: also writes the attention map of every gate, `NAME-attention-1.nii.gz` for the deepest gate and so
            on.
        dicom_seg: in a folder, label maps of DICOM series become DICOM SEG, `NAME.dcm`; a single one does if `output`
            ends in .dcm.
        provider: that computes an artefact. device: on which PyTorch computes a run.
        tf32: whether the provider cuda may round float32 to TF32, which is faster.
        pseudonymise: a CSV file outside of the output with the names of the volumes; label maps and the log have their
            numbers.
        choices: the user's readings (`--read RULE=VALUE`), by rule.
        codes: a user's codes by class name, for DICOM SEG.
        max_megapixels: bound on the pixels of a volume on the network's grid.
        audit: where every case is recorded; for artefacts alone.
        public_key: refuses a model that is not signed with it.
        confidence: estimates of Dice and the map of uncertainty, written beside the label maps.
        confidence_required: refuses a model without an estimator of Dice.

    Raises:
        InputError: for a model or an input that cannot be read, and for an impossible output.
        RunError: at the end, if volumes of a folder could not be segmented.

    Example:
        >>> predict(Path("model.onnx"), Path("scans"), Path("labels"), provider="cuda")  # doctest: +SKIP
    """
    predictor = load_local_model(model, provider=provider, device=device, public_key=public_key, tf32=tf32)
    if audit is not None and audit.path.resolve() in (model.resolve(), source.resolve(), output.resolve()):
        raise InputError(f"{audit.path}: the audit log must be another file than the model, the input and the output")
    finished = _auditor(predictor, model, audit) if audit else None
    also = _attention_writer(predictor, model) if attention else None
    check_confidence(predictor, model, confidence, required=confidence_required)
    if pseudonymise:
        _refuse_dicom_seg(output, dicom_seg)
    with pseudonyms(pseudonymise, [output]) as names:
        inputs = find_inputs(source, predictor.spec.num_channels, choices)
        is_one = source.is_file() or inputs[0].files == (source,)
        check_output(source, output, suffixes_for(inputs[0].files) if is_one else None)
        if names:
            inputs = numbered_inputs(inputs, source.parent if is_one else source, names)
        if is_one:
            _predict_one(predictor, Job(inputs[0], output, codes), also, max_megapixels, finished, confidence)
            return
        jobs = [Job(one, output / f"{one.name}{_suffix(one.files, dicom_seg)}", codes) for one in inputs]
        _predict_folder(predictor, source, output, jobs, also, max_megapixels, finished, confidence)


def _attention_writer(predictor: Model, model: Path) -> Also:
    if not predictor.num_gates:
        raise InputError(
            f"{model}: --attention needs a model with attention gates (an artefact: exported with its maps)"
        )
    return partial(_write_attention, predictor)


def _refuse_dicom_seg(output: Path, dicom_seg: bool) -> None:
    if dicom_seg or output.suffix.lower() == ".dcm":
        raise InputError(
            f"{output}: a DICOM SEG has the patient's name from its series: choose .nii.gz, or leave out --pseudonymise"
        )


def _predict_folder(
    model: Model,
    source: Path,
    output: Path,
    jobs: Sequence[Job],
    also: Also | None,
    max_megapixels: int,
    finished: Finished | None,
    confidence: ConfidenceOptions,
) -> None:
    number, count = shard_of()
    with writing(output, "prediction", part=f".{number}-of-{count}" if count > 1 else ""):
        outcome = predict_cohort(
            model,
            jobs,
            shard=(number, count),
            also=also,
            max_megapixels=max_megapixels,
            finished=finished,
            confidence=confidence,
        )
        _write_confidence_tables(model, output, jobs, confidence)
    logger.info(str(outcome))
    for _, reason in outcome.failed:  # logged before, possibly thousands of lines ago
        logger.info(f"failed: {reason}")
    if outcome.failed:
        raise RunError(f"{source}: {len(outcome.failed)} of {len(jobs)} volumes could not be segmented")


def _auditor(predictor: Model, model: Path, options: AuditOptions) -> Finished:
    if not isinstance(predictor, Segmenter):
        raise InputError(f"{model}: --audit needs an artefact; a run is no finished model")
    audit = Audit(AuditLog(options.path), predictor.sha256, predictor.signature, options.user)

    def finished(job: Job, findings: Sequence[Finding], estimates: CaseConfidence | None, is_written: bool) -> None:
        audit.record(
            hash_of_files(job.input.files), sha256(job.write) if is_written else None, findings, confidence=estimates
        )

    return finished


def _write_confidence_tables(model: Model, folder: Path, jobs: Sequence[Job], options: ConfidenceOptions) -> None:
    """The folder's tables; each process writes them from what all processes have finished by then."""
    if (
        not (options.estimates and isinstance(model, Segmenter) and model.estimator)
        or model.metadata.whole
        or not folder.is_dir()
    ):
        return
    marked = write_tables(folder, [job.write for job in jobs], model.estimator, model.sha256, model.classes.foreground)
    if model.estimator.cannot:
        logger.info(f"{folder / 'confidence.json'}: cannot tell: {model.estimator.cannot}")
    logger.info(f"{folder / 'confidence.csv'}: {marked} cases to be looked at")


def _predict_one(
    model: Model,
    job: Job,
    also: Also | None,
    max_megapixels: int,
    finished: Finished | None,
    confidence: ConfidenceOptions,
) -> None:
    try:
        volume, prepared, findings = read_prepared(job, model, max_megapixels)
    except InputError as error:
        if finished is not None:
            finished(job, (), None, False)
        raise (error if str(job.file) in str(error) else InputError(f"{job.file}: {error}")) from None
    for finding in findings:
        finding.log(logger, job.file)
    observed = ObservedCase(model, estimator_of(model), volume, prepared, confidence)
    indices = model.predict_prepared(prepared, observers=observed.observers)
    job.write.parent.mkdir(parents=True, exist_ok=True)
    if also is not None:
        also(volume, job.write)
    estimates = observed.write(job.write, findings)
    write_labels(job.write, indices, model.classes, volume, codes=job.codes)
    if finished is not None:
        finished(job, findings, estimates, True)
    logger.info(f"{job.write}: {_in_words(indices, model.classes, volume)}")
    if estimates is not None:
        logger.info(f"{confidence_file(job.write)}: {estimates.describe()}")


def load_local_model(
    path: Path, *, provider: str = "cpu", device: str = "cpu", public_key: Path | None = None, tf32: bool = False
) -> Model:
    """The model on this process's GPU, or with this process's share of the CPU threads,
    as `accelerate launch` divides them.
    """
    if not path.exists():
        raise InputError(f"{path}: no such run or artefact")
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
    if provider not in ("cuda", "tensorrt"):
        return None
    return {"device_id": local_gpu(), **({"use_tf32": 1} if tf32 else {})}


def _suffix(files: tuple[Path, ...], dicom_seg: bool) -> str:
    known = suffixes_for(files)
    return ".dcm" if dicom_seg and ".dcm" in known else known[0]


def check_output(source: Path, output: Path, endings: tuple[str, ...] | None) -> None:
    """Raises InputError for an output that does not fit the input.

    endings: of what the single input's label map can be; None for a folder of inputs.
    """
    if endings is not None:
        if not output.name.lower().endswith(endings):
            raise InputError(f"{output}: the label map's name must end in {' or '.join(dict.fromkeys(endings))}")
        if output.exists() and output.samefile(source):
            raise InputError(f"{output}: would overwrite the input")
    elif output.is_file() or output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output}: must be a folder outside the input's")


def _write_attention(model: Model, volume: Volume, write: Path) -> None:
    prepared = VolumeSlices(volume, model.spec).load()
    for number, values in enumerate(attention_volumes(model.attention, prepared), 1):
        write_map(write.with_name(f"{stem_of(write)}-attention-{number}.nii.gz"), values, volume)


def _in_words(indices: np.ndarray, classes: Classes, volume: Volume) -> str:
    """Volume of each class, in ml if the scan has a physical size."""
    voxel = volume.voxel_volume / 1000 if volume.unit == "mm" else 1.0
    unit = "ml" if volume.unit == "mm" else "voxels"
    counts = np.bincount(indices.ravel(), minlength=len(classes))
    return ", ".join(
        f"{name} {count * voxel:.0f} {unit}" for name, count in zip(classes.foreground, counts[1:], strict=True)
    )
