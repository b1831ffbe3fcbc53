"""Sensitivity of post-processing to small errors of the logits: `python -m attunet.benchmarks.evaluation.steadiness`.

Organs are the spleens of generated cases. Each is predicted with a false piece of 15 mm radius beside it, as networks
mark a part of the stomach, joined by a neck of 2 to 8 mm half-width. Smooth noise, relative to the root mean square of
the logits, disturbs the prediction.
"""

import json
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.program import program_parser
from attunet.phantom import generate_case
from attunet.phantom.anatomy import SPLEEN
from attunet.volumes.postprocess import postprocess
from attunet.volumes.spec import LARGEST, UNTOUCHED, Postprocessing

SETTINGS = (UNTOUCHED, LARGEST, Postprocessing(largest_component=True, erosion_mm=5.0))
NOISE = (1e-3, 1e-2, 3e-2, 1e-1)
CASES, DRAWS = 8, 5
NECKS_MM = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
PIECE_MM, DISTANCE_MM, MARGIN_MM = 15.0, 22.0, 40.0
MM_PER_LOGIT, MAX_LOGIT = 4.0, 5.0  # slope of a trained network's logits across a border, and their bound inside
MIN_VOXELS = 200
COLUMNS = {
    "post-processing": "{postprocessing}",
    "noise": "{noise:g}",
    "Dice": "{dice:.4f}",
    "mean spread": "{mean_spread:.4f}",
    "max spread": "{max_spread:.4f}",
}


def measure(cases: int, draws: int) -> list[Json]:
    """Mean Dice and its spread for each setting and noise level: a spread is the largest minus the smallest Dice over
    the draws, the disturbed predictions of one organ with one neck.
    """
    dice: dict[tuple[Postprocessing, float], list[list[float]]] = {
        (how, level): [] for how in SETTINGS for level in NOISE
    }
    for number, (truth, logits, spacing) in enumerate(_predictions(cases)):
        rms = float(np.sqrt(np.square(logits).mean()))
        noise = [_noise(logits.shape, [0, number, draw]) for draw in range(draws)]
        for how, level in dice:
            labels = ((logits + level * rms * disturbed > 0).astype(np.uint8) for disturbed in noise)
            dice[how, level].append([_dice(postprocess(each, 2, spacing, how) == 1, truth) for each in labels])
    return [
        {
            "postprocessing": how.words,
            "noise": level,
            "dice": float(np.mean(values)),
            "mean_spread": float(np.ptp(values, axis=1).mean()),
            "max_spread": float(np.ptp(values, axis=1).max()),
        }
        for (how, level), values in dice.items()
    ]


def _predictions(cases: int) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[float, float, float]]]:
    """Truth `(X, Y, Z)`, logits of the organ minus those of the background, and spacing, of each case and neck."""
    rng = np.random.default_rng(0)
    for index in range(cases):
        case = generate_case(0, index, reduce=3)
        spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
        organ = case.labels == SPLEEN
        if organ.sum() < MIN_VOXELS:
            continue
        (box,) = ndimage.find_objects(organ.view(np.uint8))
        room = [int(MARGIN_MM / voxel) for voxel in spacing]
        truth = np.pad(organ[box], [(n, n) for n in room])
        depth = ndimage.distance_transform_edt(truth, sampling=spacing) - ndimage.distance_transform_edt(
            ~truth, sampling=spacing
        )
        place = np.stack(
            np.meshgrid(*(np.arange(n) * s for n, s in zip(truth.shape, spacing, strict=True)), indexing="ij"), axis=-1
        )
        surface = place[(depth > 0) & (depth <= spacing.max())]
        for neck in NECKS_MM:
            start = surface[rng.integers(len(surface))]
            outwards = start - place[truth].mean(axis=0)
            outwards /= np.linalg.norm(outwards)
            along = np.clip((place - start) @ outwards, -5.0, DISTANCE_MM)
            tube = neck - np.linalg.norm(place - (start + along[..., None] * outwards), axis=-1)
            piece = PIECE_MM - np.linalg.norm(place - (start + DISTANCE_MM * outwards), axis=-1)
            field = np.maximum.reduce([depth, tube, piece]) / MM_PER_LOGIT
            x, y, z = (float(s) for s in spacing)
            yield truth, np.clip(field, -MAX_LOGIT, MAX_LOGIT), (x, y, z)


def _noise(shape: tuple[int, ...], seed: list[int]) -> np.ndarray:
    """Noise of standard deviation 1, smooth over about two voxels as upsampled logits are."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.0)
    return np.asarray(smooth / smooth.std())


def _dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (prediction & truth).sum() / (prediction.sum() + truth.sum()))


def main() -> None:
    program_parser(__doc__).parse_args()  # there is --help alone
    rows = measure(CASES, DRAWS)
    print(format_table(rows, COLUMNS))
    print(json.dumps({"cases": CASES, "draws": DRAWS, "rows": rows}))


if __name__ == "__main__":
    main()
