"""Types of results.json and metrics.jsonl. A score that is not defined is null."""

from typing import Literal, TypedDict, get_args

from attunet.classes import ClassRow
from attunet.fields import JsonObject
from attunet.system.environment import Environment

Metric = Literal["dice", "hd95_mm", "assd_mm", "mssd_mm", "ravd_percent", "surface_dice", "chaos_score"]
Part = Literal["read", "prepare", "network", "finish", "write"]
PARTS: tuple[Part, ...] = get_args(Part)  # of a volume from file to file
PerClass = dict[str, float | None]


class MetricTable(TypedDict):
    """One metric: the mean over classes, then cases; the mean of each class; case -> class -> value."""

    mean: float | None
    per_class: PerClass
    per_case: dict[str, PerClass]


class Score(MetricTable):
    """`ci95`: interval of the mean, null for fewer than five patients."""

    ci95: list[float] | None


class MetricsRow(TypedDict, total=False):
    """A line of metrics.jsonl; fields after `seconds` depend on the event."""

    event: str
    step: int
    epoch: float
    seconds: float
    loss: float
    dice: MetricTable
    slices_per_s: float
    stall_s: float
    megabytes: float


class Difference(TypedDict):
    """Second minus first, over patients."""

    mean: float | None
    ci95: list[float] | None


class TestedDifference(Difference):
    p_value: float | None
    smallest_p_value: float
    num_patients: int


class Latency(TypedDict):
    """Milliseconds of one pass."""

    p50: float
    p95: float
    p99: float
    runs: int


class LatencyByBatch(TypedDict):
    slice_shape: list[int]
    batch: dict[str, Latency]


class Speed(TypedDict):
    """Speed and size of a model; `volume_ms`: time of each part of a volume and their total."""

    latency_ms: LatencyByBatch
    throughput_slices_per_s: dict[str, dict[str, float]]  # "batch": size -> rate
    volume_ms: dict[str, float]
    peak_memory_mb: float | None
    file_mb: float
    num_parameters: int
    precision: str
    provider: str


class ModelScores(TypedDict):
    dice: Score
    hd95_mm: Score
    assd_mm: Score
    mssd_mm: Score
    ravd_percent: Score
    surface_dice: Score
    chaos_score: Score
    pixel_accuracy: float | None
    precision_per_class: PerClass
    recall_per_class: PerClass
    confusion: list[list[int]]
    seen_cases: list[str]


class EvaluatedRow(Speed, ModelScores):
    name: str
    file: str
    backend: str
    provider_options: JsonObject


class ModelComparison(TypedDict):
    first: str
    second: str
    agreement: dict[str, float | None]  # of the label maps: dice, equal_voxels
    dice_difference: TestedDifference
    words: str


class EvaluatedStore(TypedDict):
    """`unit`: of distances, which fields call mm: mm, or pixels for images without physical spacing."""

    name: str
    unit: str
    fold: int | None
    cases: list[str]
    classes: list[ClassRow]


class EvaluationResults(TypedDict):
    """results.json of an evaluation."""

    schema: int
    environment: Environment
    store: EvaluatedStore
    models: list[EvaluatedRow]
    comparisons: list[ModelComparison]


class WorstCase(TypedDict):
    case: str
    value: float


class MethodScore(Score):
    """One metric of a method: `per_case`, its mean over the classes, and `per_class` are means over the seeds."""

    median: float | None
    worst: WorstCase | None
    per_case_mean: PerClass
    per_class_worst: PerClass
    per_seed: PerClass
    per_seed_case: dict[str, PerClass]


WorstOrgan = TypedDict(
    "WorstOrgan",
    {"seed": int, "fold": int, "case": str, "class": str, "dice": float, "picture": str | None},
    total=False,
)


class TimeToAccuracy(TypedDict):
    """Dice after minutes of training, and the minutes until each target."""

    minutes: list[float]
    dice: list[float]
    minutes_to: dict[str, float | None]
    num_runs: int


class MethodRow(TypedDict):
    """A network trained by a recipe, in results.json of a cross-validation."""

    name: str
    recipe: str
    model: str
    postprocessing: str
    configured: bool
    num_runs: int
    num_cases: int
    scores: dict[str, MethodScore]
    worst_organ: WorstOrgan | None
    time_to_accuracy: TimeToAccuracy


class PatientDifferences(TestedDifference):
    per_patient: dict[str, float]


class MethodComparison(TypedDict):
    first: str
    second: str
    dice: PatientDifferences
    others: dict[str, TestedDifference]
    per_class: dict[str, Difference]
    words: str


class CrossvalidatedStore(TypedDict):
    """`folds`: fold -> its held-out cases; `unit`: as of an evaluation."""

    name: str
    unit: str
    classes: list[ClassRow]
    folds: dict[str, list[str]]
    num_patients: int


class UnfinishedRun(TypedDict):
    run: str
    step: int


class CrossvalidationResults(TypedDict):
    """results.json of a cross-validation; `commands`: of the preparation and the cross-validation."""

    schema: int
    environment: Environment
    store: CrossvalidatedStore
    seeds: list[int]
    recipes: dict[str, dict[str, JsonObject]]
    num_runs: int
    missing: list[UnfinishedRun]
    commands: list[str]
    methods: list[MethodRow]
    comparisons: list[MethodComparison]
