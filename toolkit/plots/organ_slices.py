"""One organ through a volume, slice by slice: where a prediction leaves the truth."""

from pathlib import Path

import numpy as np

from attunet.plots.figure import new_figure, save, show_grey
from attunet.plots.outlines import add_legend, colors_of, mark_sides, outline_layer, zoom_to
from attunet.plots.view import View
from attunet.volumes.volume import Volume

COLUMNS, MOST = 6, 12


def draw_organ_slices(path: Path, volume: Volume, view: View, truth: np.ndarray, prediction: np.ndarray, *, title: str) -> Path:
    """truth, prediction: masks (X, Y, Z) of one organ on the volume's grid, one of them not empty.

    The slices of `slices_to_show`, in their order, with the Dice of each and of all.
    """
    image, true, found = view.slices(volume.data[0]), view.slices(truth), view.slices(prediction)
    shown = slices_to_show(true, found)
    colors = colors_of(("truth", "prediction"))
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(2.3 * columns, 2.6 * rows + 0.8)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    around = (true | found)[shown].any(0)
    for axes, index in zip(grid, shown, strict=False):
        show_grey(axes, image[index], view.row_over_column)
        for key, mask in (("truth", true), ("prediction", found)):
            outline_layer(axes, mask[index], key, colors)
        axes.set_title(f"slice {index + 1} of {len(image)}: {_dice(true[index], found[index]):.2f}", fontsize=9)
        zoom_to(axes, around, view.row_over_column)
    mark_sides(grid[0], view.sides)
    add_legend(figure, colors)
    figure.suptitle(f"{title}: Dice {_dice(true, found):.3f}", fontsize=12)
    return save(figure, path)


def slices_to_show(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Ascending numbers of at most `MOST` slices of two masks (n, rows, columns): of those that either is in, the most wrong ones."""
    wrong = (true != found).sum((1, 2))
    there = np.flatnonzero((true | found).any((1, 2)))
    return np.sort(there[np.argsort(-wrong[there], kind="stable")][:MOST])


def _dice(true: np.ndarray, found: np.ndarray) -> float:
    return float(2 * (true & found).sum() / (true.sum() + found.sum()))
