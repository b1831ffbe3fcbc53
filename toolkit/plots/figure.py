"""Parts of all pictures: figures, saving, colours of models.

Figures are made without pyplot: nothing global, no display, and Agg draws the PNG.
"""

import re
from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attunet.classes import PALETTE
from attunet.system.atomic_files import write_file

DPI = 150
rcParams["text.parse_math"] = False  # names come from files, where a dollar sign starts no formula
MODEL_COLORS = PALETTE[1:]
TRUTH_COLOR = "#FFFFFF"


def new_figure(width: float, height: float) -> Figure:
    """A white figure; width and height in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def save(figure: Figure, path: Path) -> Path:
    """Write the PNG atomically; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda partial: figure.savefig(partial, format="png"))
    return path


def model_color(index: int) -> str:
    """Colour of a model by its number; colours repeat after eight."""
    return MODEL_COLORS[index % len(MODEL_COLORS)]


def show_grey(axes: Axes, image: np.ndarray, row_over_column: float) -> None:
    """Show a slice `(rows, columns)` in grey between its 1st and 99.5th percentile; row_over_column:
    height of a pixel over its width.
    """
    low, high = np.percentile(image, (1, 99.5))
    axes.imshow(
        image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=row_over_column, interpolation="bilinear"
    )
    axes.set_xticks([])
    axes.set_yticks([])


def file_name(label: str) -> str:
    """Make a file name of a label."""
    return re.sub(r"[^A-Za-z0-9.=@+-]+", "_", label).strip("_.") or "model"
