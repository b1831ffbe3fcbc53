"""One organ through a volume, slice by slice: where a prediction leaves the truth."""

from pathlib import Path

import numpy as np

from attunet.plots.figure import panel_grid, save, show_grey
from attunet.plots.outlines import add_legend, colors_of, mark_sides, outline_layer, zoom_to
from attunet.plots.view import View
from attunet.volumes.volume import Volume

COLUMNS, MAX_SLICES = 6, 12


def draw_organ_slices(
    path: Path, volume: Volume, view: View, truth: np.ndarray, prediction: np.ndarray, *, title: str
) -> Path:
    """Draw the slices of one organ with the most wrong pixels, with the Dice of each and of all.

    truth and prediction are masks `(X, Y, Z)` of the organ on the volume's grid; at least one is not empty.

    Example:
        >>> view, organ = view_of(volume), truth == 1  # doctest: +SKIP
        >>> draw_organ_slices(Path("liver.png"), volume, view, organ, labels == 1, title="liver")  # doctest: +SKIP
    """
    image, true, predicted = view.slices(volume.data[0]), view.slices(truth), view.slices(prediction)
    shown = slices_to_show(true, predicted)
    colors = colors_of(("truth", "prediction"))
    figure, grid = panel_grid(len(shown), COLUMNS, (2.3, 2.6), 0.8)
    around = (true | predicted)[shown].any(0)
    for axes, index in zip(grid, shown, strict=False):
        axes.set_axis_on()
        show_grey(axes, image[index], view.row_over_column)
        for key, mask in (("truth", true), ("prediction", predicted)):
            outline_layer(axes, mask[index], key, colors)
        axes.set_title(f"slice {index + 1} of {len(image)}: {_dice(true[index], predicted[index]):.2f}", fontsize=9)
        zoom_to(axes, around, view.row_over_column)
    mark_sides(grid[0], view.sides)
    add_legend(figure, colors)
    return save(figure, path, f"{title}: Dice {_dice(true, predicted):.3f}")


def slices_to_show(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Ascending numbers of the `MAX_SLICES` slices of two masks `(n, rows, columns)` with the most wrong pixels."""
    wrong = (true != predicted).sum((1, 2))
    present = np.flatnonzero((true | predicted).any((1, 2)))
    return np.sort(present[np.argsort(-wrong[present], kind="stable")][:MAX_SLICES])


def _dice(true: np.ndarray, predicted: np.ndarray) -> float:
    return float(2 * (true & predicted).sum() / (true.sum() + predicted.sum()))
