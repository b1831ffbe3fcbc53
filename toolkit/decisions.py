"""Decisions: readings of a user's files that another program could make otherwise, with a rule, a reason and an option.

Every rule is a row of `RULES`; docs/sources.md has the table. A reader notes a decision on its volume, `prepare` and
`inspect` print it as `decided: ...`, and the manifest keeps it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attunet.errors import Finding, InputError


@dataclass(frozen=True)
class Rule:
    """One kind of decision."""

    question: str  # the subject of the decision
    default: str  # the reading that is taken without an option
    option: str = ""  # the option that takes another reading
    # Values of `--read RULE=VALUE`, the default first; empty where another option decides
    choices: tuple[str, ...] = ()


RULES: dict[str, Rule] = {
    "nifti-geometry": Rule(
        "NIfTI files whose sform contradicts qform and pixdim",
        "an error that names both",
        choices=("refuse", "sform", "pixdim"),
    ),
    "nifti-orientation": Rule(
        "NIfTI files that state no orientation (sform and qform code 0)",
        "axes run to left, anterior and superior, as nibabel reads them",
        choices=("LAS", "RAS", "LPS", "RPS", "LAI", "RAI", "LPI", "RPI"),
    ),
    "analyze-orientation": Rule(
        "Analyze files, which state no orientation",
        "the first axis runs to the left; SPM's scale and offset are applied",
        option="write NIfTI",
    ),
    "mgh-orientation": Rule(
        "MGH and MGZ files whose direction is not valid (goodRASFlag 0)",
        "voxels of 1 mm in FreeSurfer's coronal slices",
        option="write NIfTI",
    ),
    "itk-orientation": Rule(
        "NRRD without a space and MetaImage without directions",
        "axes run to left, posterior and superior, as ITK reads them",
        option="write NIfTI",
    ),
    "nifti-units": Rule(
        "NIfTI files in metres or micrometres",
        "converted to mm; an error where voxels would be larger than 50 mm",
        choices=("auto", "mm", "convert"),
    ),
    "nifti-pixdim": Rule(
        "NIfTI files whose header gives no voxel size (pixdim 0)", "1 mm, as nibabel reads", option="repair the header"
    ),
    "nifti-codes": Rule("NIfTI codes that do not exist", "taken as unknown", option="repair the header"),
    "oblique": Rule(
        "scans tilted by more than 30 degrees",
        "an axis counts as the nearest one of the body",
        option="rotate the scan to its axes",
    ),
    "sheared": Rule(
        "scans whose axes are not at right angles (a tilted gantry)",
        "slices stay as they lie",
        option="resample the scan to right angles",
    ),
    "mixed-intensities": Rule(
        "sets in which some scans have voxels below -500, as CT has",
        "scaled as the majority",
        option="--set data.normalization=ct|zscore",
    ),
    "mask-geometry": Rule(
        "masks of the image's shape, where one of both states no orientation",
        "voxel by voxel on the image",
        option="give the mask the image's affine",
    ),
    "same-patient": Rule(
        "cases whose names, folders or DICOM headers are of one patient",
        "folds by that patient",
        option="--case-pattern REGEX",
    ),
    "fourth-axis": Rule(
        "NIfTI, MGZ and ITK files with a fourth axis",
        "its entries are channels",
        option="split the file into one for each moment",
    ),
    "exif-orientation": Rule(
        "photographs and masks with a camera orientation (EXIF)",
        "it is applied, as viewers do",
        choices=("apply", "ignore"),
    ),
    "alpha-mask": Rule(
        "masks with an alpha channel",
        "alpha is the mask where black or white alone is painted; else it says what is background",
        choices=("mask", "drop"),
    ),
    "raw-tiff": Rule("TIFF masks that say white is zero", "samples are read as stored", choices=("raw", "inverted")),
    "mask-jpeg-2000": Rule(
        "masks as JPEG 2000 without loss",
        "samples are label values; a file does not say that it was cut to a size, which changes them",
        option="write PNG",
    ),
    "mask-colours": Rule(
        "masks with a palette or in colours",
        "the indices where they agree in all files, else a colour is a class",
        option='--classes "liver=#ff0000,..."',
    ),
    "mask-greys": Rule(
        "masks with smoothed edges",
        "greys with regions of their own are classes; edges go to the nearest of them",
        option="--classes with every value",
    ),
    "value-255": Rule(
        "masks with 255 beside small label values",
        "it is a class like the others",
        option='--classes "NAME=1,ignore=255"',
    ),
    "rounded-labels": Rule(
        "label values within 0.001 of whole numbers", "they are rounded", option="write the masks as integers"
    ),
    "intensities-as-labels": Rule(
        "masks of many values that change from voxel to voxel, as intensities do",
        "an error",
        choices=("refuse", "take"),
    ),
    "nan-labels": Rule(
        "NaN in masks that are whole numbers elsewhere", "it is background", option="write the masks as integers"
    ),
    "overlapping-classes": Rule(
        "classes in files of their own, or objects of a class, that overlap",
        "an error with the number of voxels",
        choices=("refuse", "first", "last"),
    ),
    "mask-files": Rule(
        "cases with several mask files",
        "names that recur are classes, numbered ones objects",
        option="--masks NAME,...",
    ),
    "missing-masks": Rule(
        "cases without the mask file of a class that others have",
        "the class was not drawn there: nothing is learned or judged about it in this case",
        choices=("undrawn", "empty"),
    ),
    "mask-folder": Rule("several folders of masks", "the one whose name says most", option="--masks NAME"),
    "label-studio-tasks": Rule(
        "Label Studio's PNG masks, which have the numbers of tasks and not the names of pictures",
        "the picture with this number in its name, at this place or in this order, where these agree; else an error",
        choices=("auto", "name", "position", "order"),
    ),
    "label-studio-annotations": Rule(
        "tasks of Label Studio with several annotations", "the first counts", option="--masks by-3"
    ),
    "image-roles": Rule(
        "several images of a case", "the usual ones on the mask's grid are channels", option="--images NAME,..."
    ),
    "published-split": Rule("labelled cases in a folder named test", "they are the test set", choices=("test", "mix")),
    "unlabelled-part": Rule(
        "folders named test or validation without any mask", "left out of the store", option="--allow-unlabelled"
    ),
    "dicom-series": Rule(
        "folders with several DICOM series", "an error that lists them", option="--series NUMBER|TEXT"
    ),
    "dicom-bits": Rule(
        "DICOM with fewer bits stored than allocated",
        "the bits beyond are no values; the sign is extended",
        choices=("stored", "allocated"),
    ),
    "dicom-preamble": Rule(
        "DICOM files without the 128-byte preamble", "they are read where a series needs them", choices=("read", "skip")
    ),
    "monochrome1": Rule(
        "DICOM whose lowest value is white (MONOCHROME1)",
        "inverted, but for CT and PET, whose values have a unit",
        choices=("auto", "stored", "inverted"),
    ),
}

Choices = Mapping[str, str]  # the user's readings (`--read RULE=VALUE`), by rule


@dataclass(frozen=True)
class Decision:
    """One decision about one file: the rule's name, and the reading with its reason."""

    rule: str
    text: str

    def __post_init__(self) -> None:
        assert self.rule in RULES, self.rule


def choice(rule: str, choices: Choices) -> str:
    """The value of a rule: the user's choice, or the rule's default."""
    return choices.get(rule, RULES[rule].choices[0])


def parse_choices(texts: Iterable[str], series: str | None = None) -> dict[str, str]:
    """The options `--read RULE=VALUE` and `--series` as choices, without those that are taken without an option. Raises
    InputError for an unknown rule or value.
    """
    choices = {} if series is None else {"dicom-series": series.strip()}
    if "" in choices.values():
        raise InputError("--series: must be a number or a part of a description, got nothing")
    known = {name: rule.choices for name, rule in RULES.items() if rule.choices}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError(f"--read: the rule must be one of {', '.join(known)}, got {name!r}")
        if value not in known[name]:
            raise InputError(f"--read: {name} must be one of {', '.join(known[name])}, got {value!r}")
        choices[name] = value
    return {rule: value for rule, value in choices.items() if (value,) != known.get(rule, ())[:1]}


def as_findings(decisions: Mapping[str | None, Iterable[Decision]]) -> list[Finding]:
    """One finding for each different decision of the cases, by their names, with the number of cases that share it.
    Decisions of None are about the whole source.
    """
    cases: dict[Decision, list[str | None]] = {}
    for case, made in decisions.items():
        for decision in dict.fromkeys(made):
            cases.setdefault(decision, []).append(case)
    findings = []
    for decision, names in cases.items():
        rule = RULES[decision.rule]
        option = rule.option or f"--read {decision.rule}={'|'.join(rule.choices[1:])}"
        share = "" if None in names else f"{len(names)} of {len(decisions)} cases; "
        text = f"{decision.text} ({share}otherwise: {option})"
        findings.append(Finding(names[0] if len(names) == 1 else None, decision.rule, len(names), "decided", text))
    return findings


def rules_table() -> str:
    """The Markdown table of docs/sources.md: one row for each rule."""
    rows = ["| rule | about | without an option | otherwise |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        otherwise = rule.option or ", ".join(f"`--read {name}={value}`" for value in rule.choices[1:])
        rows.append(f"| `{name}` | {rule.question} | {rule.default} | {otherwise} |")
    return "\n".join(rows) + "\n"
