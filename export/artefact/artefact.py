"""An artefact's metadata: one key, `attunet`, with a versioned JSON that `docs/artefact.md` describes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import cast

from attunet.channels import are_distinct
from attunet.classes import Classes
from attunet.confidence.estimator import Estimator
from attunet.errors import InputError
from attunet.export.artefact.dice_at_export import DiceAtExport
from attunet.export.artefact.graph_tensors import INPUT, SPACING, VOLUME, Tensor, label_dtype
from attunet.export.artefact.self_test_data import SelfTest
from attunet.fields import Fields, JsonObject, Rule, is_number, is_whole
from attunet.volumes.spec import MAX_SIDE, MULTIPLE, Postprocessing, Preprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges

SCHEMA = 2
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Artefact:
    """The metadata of an artefact; `docs/artefact.md` describes every field.

    `channels` are empty and `ranges` None where they are not known; `height` and `width` are None where any multiple of
    16 is accepted. `training_cases` has the SHA-256 of each case's image; `parent` is None for fresh weights,
    `confidence` where nothing was learned. `whole` means that the graph takes a volume and gives its label map.
    """

    name: str
    precision: str
    preprocessing: Preprocessing
    classes: Classes
    num_parameters: int
    channels: tuple[str, ...] = ()
    ranges: TrainingRanges | None = None
    outputs: tuple[str, ...] = ("labels", "logits")
    height: int | None = None
    width: int | None = None
    training_cases: dict[str, str] = field(default_factory=dict)
    training_voxels: tuple[str, ...] = ()
    fold: int | str = "all"
    step: int = 0
    num_members: int = 1
    license: str | None = None
    parent: dict[str, str] | None = None
    store_sha256: str | None = None
    checkpoint_sha256: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    dice_at_export: DiceAtExport | None = None
    tools: dict[str, str] = field(default_factory=dict)
    self_test: SelfTest | None = None
    whole: bool = False
    confidence: Estimator | None = None

    @property
    def spec(self) -> PreprocessSpec:
        return self.preprocessing.spec

    @property
    def postprocessing(self) -> Postprocessing:
        return self.preprocessing.postprocessing

    @property
    def attention_outputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.outputs if name.startswith("attention_"))

    @property
    def network_settings(self) -> Mapping[str, object]:
        """The section `[model]` of the training's configuration."""
        model = self.config.get("model")
        return model if isinstance(model, dict) else {}

    @property
    def size(self) -> tuple[int | None, int | None]:
        return self.height, self.width

    @property
    def inputs(self) -> list[Tensor]:
        """Slices, or a whole volume and its spacing."""
        if self.whole:
            volume = Tensor(VOLUME, "float32", (self.spec.num_channels, "slices", "rows", "columns"))
            return [volume, Tensor(SPACING, "float32", (3,))]
        return [Tensor(INPUT, "float32", ("batch", self.spec.in_channels, "height", "width"), self.size)]

    @property
    def output_tensors(self) -> list[Tensor]:
        return [self._output(name) for name in self.outputs]

    def _output(self, name: str) -> Tensor:
        if self.whole:
            return Tensor(name, label_dtype(self.classes).name, ("slices", "rows", "columns"))
        if name == "labels":
            return Tensor(name, "uint8", ("batch", "height", "width"), self.size)
        channels = len(self.classes) if name in ("logits", "probabilities") else 1
        of = f" of {name}" if name.startswith("attention_") else ""
        return Tensor(name, "float32", ("batch", channels, f"height{of}", f"width{of}"), self.size)

    def to_json(self) -> JsonObject:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "precision": self.precision,
            "preprocessing": self.spec.to_json(),
            "classes": self.classes.to_json(),
            "input": {
                "name": VOLUME if self.whole else INPUT,
                "dtype": "float32",
                "layout": "CZYX" if self.whole else "NCHW",
                "channels": self.spec.num_channels if self.whole else self.spec.in_channels,
                "height": self.height,
                "width": self.width,
                "multiple_of": MULTIPLE,
            },
            **({"channel_names": list(self.channels)} if self.channels else {}),
            "outputs": [
                {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.axes)}
                for tensor in self.output_tensors
            ],
            "postprocessing": asdict(self.postprocessing),
            "num_parameters": self.num_parameters,
            "ranges": self.ranges and self.ranges.to_json(),
            "training": {
                "cases": self.training_cases,
                "voxels": list(self.training_voxels),
                "fold": self.fold,
                "step": self.step,
                "num_members": self.num_members,
                "license": self.license,
                "parent": self.parent,
                "store_sha256": self.store_sha256,
                "checkpoint_sha256": list(self.checkpoint_sha256),
            },
            "config": self.config,
            "dice_at_export": self.dice_at_export or {},
            "tools": self.tools,
            "confidence": self.confidence and self.confidence.to_json(),
            "golden": self.self_test.to_json() if self.self_test else {},
        }

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> "Artefact":
        """Raises InputError naming the file `where` and the field, for a value that `to_json` cannot have written."""
        at = Fields(data, where)
        side, training, golden = at.inner("input"), at.inner("training"), at.inner("golden")
        whole = side.choice("name", (INPUT, VOLUME)) == VOLUME
        length = Rule(int, MULTIPLE, MAX_SIDE, multiple_of=MULTIPLE, null=True)
        classes = Classes.from_json(at.rows("classes"))

        def has(key: str) -> bool:
            return training.data.get(key) is not None

        spec = PreprocessSpec.from_json(at.inner("preprocessing"))
        return cls(
            name=at.text("name"),
            precision=at.choice("precision", PRECISIONS),
            preprocessing=Preprocessing(spec, Postprocessing.from_json(at.inner("postprocessing"))),
            classes=classes,
            channels=_channels(at, spec.num_channels),
            num_parameters=at.whole("num_parameters"),
            ranges=at.optional("ranges", TrainingRanges.from_json),
            outputs=_outputs(at, "labels" if whole else "logits"),
            height=side.get("height", length),
            width=side.get("width", length),
            training_cases=training.texts("cases"),
            training_voxels=tuple(training.text_list("voxels") if has("voxels") else ()),
            fold=training.require("fold", lambda v: v == "all" or is_whole(v), "a fold's number or all"),
            step=training.whole("step"),
            num_members=training.whole("num_members"),
            license=training.get("license", Rule(str, null=True)),
            parent=training.optional("parent", lambda one: {key: one.text(key) for key in ("name", "sha256")}),
            store_sha256=training.text("store_sha256") if has("store_sha256") else None,
            # Older artefacts lack it
            checkpoint_sha256=tuple(training.text_list("checkpoint_sha256") if has("checkpoint_sha256") else ()),
            config=at.inner("config").data,
            dice_at_export=_dice(at),
            tools=at.texts("tools"),
            self_test=SelfTest.from_json(golden) if golden.data else None,
            whole=whole,
            confidence=at.optional("confidence", lambda inner: Estimator.from_json(inner, len(classes) - 1)),
        )


def _channels(at: Fields, num_channels: int) -> tuple[str, ...]:
    if "channel_names" not in at:
        return ()
    names = at.text_list("channel_names")
    if len(names) != num_channels or not are_distinct(names):
        raise InputError(f"{at.name('channel_names')}: must be {num_channels} distinct names, got {names[:9]}")
    return tuple(names)


def _outputs(at: Fields, needed: str) -> tuple[str, ...]:
    names = tuple(row.text("name") for row in at.rows("outputs"))
    if needed not in names or len(set(names)) < len(names):
        raise InputError(f"{at.where}: outputs must be distinct and include {needed}, got {list(names)[:9]}")
    return names


def _dice(at: Fields) -> DiceAtExport | None:
    def is_score(value: object) -> bool:
        return value is None or is_number(value, 0, 1)

    def are_scores(value: object) -> bool:
        return isinstance(value, dict) and all(map(is_score, value.values()))

    dice = at.inner("dice_at_export")
    if not dice.data:
        return None
    dice.choice("cases", ("held out", "training"))
    for name in ("artefact", "checkpoint"):
        dice.require(name, is_score, "a number from 0 to 1 or null")
    dice.require("per_class", are_scores, "an object of numbers from 0 to 1")
    rule = "numbers from 0 to 1 by case and class"
    dice.require("per_case", lambda v: isinstance(v, dict) and all(map(are_scores, v.values())), rule)
    if dice.data.get("ci95") is not None:  # absent in older files
        dice.get("ci95", Rule(float, 0, 1, length=2, ordered=True))
    return cast(DiceAtExport, dice.data)
