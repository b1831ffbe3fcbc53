"""Parts of all pictures: figures, saving, colours of models.

Figures are made without pyplot: nothing global, no display, and Agg draws the PNG.
"""

import warnings
from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from attunet.classes import PALETTE
from attunet.system.atomic_files import write_file
from attunet.system.plain_text import printable

DPI = 150
# Names come from files: no dollar sign starts a formula, and no matplotlibrc in the working directory calls TeX.
rcParams.update({"text.parse_math": False, "text.usetex": False})
MODEL_COLORS = PALETTE[1:]
TRUTH_COLOR = "#FFFFFF"


def new_figure(width: float, height: float) -> Figure:
    """A white figure; width and height in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def panel_grid(count: int, columns: int, panel: tuple[float, float], extra: float) -> tuple[Figure, list[Axes]]:
    """A figure of at least `count` panels in rows, whose axes are off; `panel` and `extra` height in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(panel[0] * columns, panel[1] * rows + extra)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    return figure, grid


def save(figure: Figure, path: Path, title: str = "") -> Path:
    """Write the PNG atomically, with a title if there is one; its folder is made if missing.

    Names come from files: control characters in titles, legends and texts become `?`. Labels of ticks, which matplotlib
    sets while it draws, have to be made `printable` by the caller.
    """
    if title:
        figure.suptitle(title, fontsize=12)
    for text in figure.findobj(Text):
        text.set_text(printable(text.get_text()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)  # it is drawn as a box
        write_file(path, lambda partial: figure.savefig(partial, format="png"))
    return path


def model_color(index: int) -> str:
    """Colour of a model by its number; colours repeat after eight."""
    return MODEL_COLORS[index % len(MODEL_COLORS)]


def show_grey(axes: Axes, image: np.ndarray, row_over_column: float) -> None:
    """Show a slice `(rows, columns)` in grey from its 1st to 99.5th percentile; row_over_column is of a pixel."""
    low, high = np.percentile(image, (1, 99.5))
    high = max(high, low + 1e-6)
    axes.imshow(image, "gray", vmin=low, vmax=high, aspect=row_over_column, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
