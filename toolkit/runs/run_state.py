"""The contents of a checkpoint's `state.json`: what a run is trained on, with which settings, and how far it is."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from attunet.classes import Classes
from attunet.config import ResolvedConfig
from attunet.errors import InputError
from attunet.fields import MAX_PATH, Fields, is_number, is_whole
from attunet.runs.lineage import Lineage
from attunet.store import Store
from attunet.version import __version__
from attunet.volumes.spec import Preprocessing
from attunet.volumes.training_ranges import TrainingRanges

SCHEMA = 3

# Fields of [run] that may change when a run is resumed: none of them changes a result.
FREE_TO_CHANGE = (
    *("device", "compile", "cuda_graph", "activation_checkpointing", "resident_gb", "tracker", "project", "minutes"),
    *("log_every", "checkpoint_every_minutes", "checkpoint_every_steps", "timeout_minutes", "snapshots"),
)

# Of a training in `run.minutes`, which sets them with its number of steps.
SET_BY_TIME = ("epochs", "warmup_fraction", "validate_every_epochs")

# Inputs of a run, and the words for a difference.
CONTENT = {
    "preprocessing": "scans prepared with other settings",
    "classes": "other classes",
    "channels": "other channels, or channels in another order",
    "fold": "another fold",
    "training_cases": "other training cases",
    "training_labels": "other masks of the training cases",
    "drawn": "other drawn classes of the training cases",
    "readings": "files of the training cases that were read in another way",
}


@dataclass(frozen=True)
class RunState:
    """State of a run beside its tensors. It has no path or name of a source file.

    Args:
        config: the configuration without `auto` in `[model]` and `[optim]`.
        automatic: `section.field` of the settings that were `auto` when the run began.
        preprocessing, classes, ranges: of the store.
        store: folder of the store.
        store_sha256: of the store's manifest.
        fold: the fold that is left out; "all" for none.
        training_cases: case name to SHA-256 of its image.
        training_labels: case name to SHA-256 of its labels.
        training_voxels: hashes of the voxels of the training cases, which are the same in any file; with `--init` also
            the hashes of files and voxels of all that the parent has seen, through any number of generations.
        held_out: labelled cases that neither this training nor its parent has seen.
        drawn: partially labelled training case to the names of its drawn classes, joined by commas.
        readings: case name to SHA-256 of how the store reads its files.
        data_tier: where the slices were kept at the start; the order of the samples depends on it.
        step: training steps done.
        finished: True after the last step.
        scaler: state of the gradient scaler of a float16 training.
        best: highest Dice of a validation so far.
        lineage: the model that the run started from; None for fresh weights.
        channels: names of the images' channels; empty where they are not known.
        attunet: version of the package.
    """

    config: ResolvedConfig
    preprocessing: Preprocessing
    classes: Classes
    ranges: TrainingRanges
    store: Path
    store_sha256: str
    fold: int | Literal["all"]
    training_cases: dict[str, str]
    training_labels: dict[str, str]
    held_out: list[str]
    data_tier: str = "resident"
    step: int = 0
    finished: bool = False
    scaler: dict[str, float] | None = None
    best: float | None = None
    drawn: dict[str, str] = field(default_factory=dict)
    readings: dict[str, str] = field(default_factory=dict)
    lineage: Lineage | None = None
    channels: list[str] = field(default_factory=list)
    automatic: list[str] = field(default_factory=list)
    training_voxels: list[str] = field(default_factory=list)
    attunet: str = __version__

    @classmethod
    def at_start(
        cls,
        store: Store,
        training: list[str],
        held_out: list[str],
        fold: int | Literal["all"],
        config: ResolvedConfig,
        seen_before: Iterable[str] = (),
    ) -> "RunState":
        """The state of a run before its first step. held_out: cases that the fold leaves out; seen_before: hashes of
        what the initial weights were trained on.

        Example:
            >>> RunState.at_start(store, ["01", "02"], ["03"], 0, config).step  # doctest: +SKIP
        """
        cases = {case: store.case(case) for case in training}
        voxels = {digest for case in cases.values() for digest in (case.content_sha256, *case.channel_sha256)}
        of_parent = set(seen_before) - voxels
        seen = store.seen_cases(of_parent) if of_parent else ()
        return cls(
            config=config,
            preprocessing=store.preprocessing,
            classes=store.classes,
            ranges=store.ranges,
            store=store.path.resolve(),
            store_sha256=store.sha256,
            fold=fold,
            training_cases={name: case.image_sha256 for name, case in cases.items()},
            training_labels={name: case.label_sha256 or "" for name, case in cases.items()},
            training_voxels=sorted(voxels | of_parent),
            held_out=[case for case in held_out if case not in seen],
            readings={name: store.reading_sha256(name) for name in training},
            channels=list(store.channels),
            drawn={name: ",".join(case.drawn) for name, case in cases.items() if case.drawn is not None},
        )

    @property
    def seen_hashes(self) -> list[str]:
        """Hashes of the files and voxels of all images that the weights have seen."""
        return sorted({*self.training_cases.values(), *self.training_voxels})

    def renamed(self, numbers: Mapping[str, str]) -> Self:
        """The state with other names of its cases, in the order of these; cases without one are left out."""

        def of_cases(values: Mapping[str, str]) -> dict[str, str]:
            return dict(sorted((numbers[case], value) for case, value in values.items() if case in numbers))

        return dataclasses.replace(
            self,
            training_cases=of_cases(self.training_cases),
            training_labels=of_cases(self.training_labels),
            held_out=sorted(numbers[case] for case in self.held_out if case in numbers),
            drawn=of_cases(self.drawn),
            readings=of_cases(self.readings),
        )

    def to_json(self) -> dict[str, object]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {name: values[name].to_json() for name in ("config", "preprocessing", "classes", "ranges")}
        values["lineage"] = self.lineage.to_json() if self.lineage is not None else None
        return {"schema": SCHEMA, **values, "store": str(self.store)}

    @classmethod
    def from_json(cls, at: Fields) -> "RunState":
        """Raises InputError for a state of another schema, and for a field that is missing or wrong."""
        if at.data.get("schema") != SCHEMA:
            raise InputError(
                f"{at.where}: is a checkpoint of schema {at.data.get('schema')!r}, this attunet reads schema {SCHEMA}"
            )
        return cls(
            config=ResolvedConfig.from_json(at.inner("config").data, at.where),
            preprocessing=Preprocessing.from_json(at.inner("preprocessing")),
            classes=Classes.from_json(at.rows("classes")),
            ranges=TrainingRanges.from_json(at.inner("ranges")),
            store=Path(at.text("store", MAX_PATH)),
            store_sha256=at.text("store_sha256"),
            fold=at.require("fold", lambda v: v == "all" or is_whole(v), 'an integer or "all"'),
            training_cases=at.texts("training_cases"),
            training_labels=at.texts("training_labels"),
            training_voxels=at.text_list("training_voxels"),
            held_out=at.text_list("held_out"),
            drawn=at.texts("drawn"),
            readings=at.texts("readings"),
            data_tier=at.choice("data_tier", ("resident", "streamed")),
            step=at.whole("step"),
            finished=at.flag("finished"),
            scaler=at.require("scaler", lambda v: v is None or _are_numbers(v), "an object of numbers or null"),
            best=at.require("best", lambda v: v is None or is_number(v), "a number or null"),
            channels=at.text_list("channels"),
            automatic=at.text_list("automatic"),
            lineage=at.optional("lineage", Lineage.from_json),
            attunet=at.text("attunet"),
        )

    def check_masks(self, store: Store, path: Path) -> None:
        """Raise InputError, about the run `path`, where a store has other masks of its training cases, or reads their
        files in another way. Scans that the store lacks are passed over, and it may call them by other names.
        """
        of_image = {case.image_sha256: case for case in store.cases}
        own = {case.name: case for case in store.cases}
        advice = "name the store that it was trained on, or train it again"
        for name, image in self.training_cases.items():
            case = own[name] if name in own and own[name].image_sha256 == image else of_image.get(image)
            if case is None:
                continue
            if self.training_labels.get(name, "") != (case.label_sha256 or ""):
                raise InputError(f"{path}: was trained with other masks than {store.path} has: {advice}")
            if self.readings.get(name) != store.reading_sha256(case.name):
                raise InputError(f"{path}: {store.path} reads its training cases in another way: {advice}")

    def check_same_training(self, now: "RunState", path: Path) -> None:
        """Raise InputError, about the checkpoint `path`, naming the first difference between this run and a fresh start
        of it, `now`.
        """
        before, after = self.config.to_json(), now.config.to_json()
        for section, fields in after.items():
            for name, value in fields.items():
                old = before[section][name]
                if old != value and not (section == "run" and name in FREE_TO_CHANGE):
                    raise InputError(
                        f"{path}: {section}.{name} was {old!r} when this run began and is now {value!r}; keep the value"
                    )
        for name, words in CONTENT.items():
            if getattr(self, name) != getattr(now, name):
                raise InputError(f"{path}: this run began with {words}; continue with the same store and fold")


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))
