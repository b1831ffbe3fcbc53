"""The frame that all charts of a report share. Colours are `@N`, the page's own for light and dark;
`@text` and `@grid` are the page's.
"""

from collections.abc import Sequence

Figure = dict[str, object]  # JSON values, as plotly takes them
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "pentagon")


def plain(text: str) -> str:
    """A name as plotly shows it letter by letter: it reads some tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def chart(title: str, about: str, data: list[Figure], layout: Figure) -> Figure:
    """A chart as the page draws it. title and about: for its caption; data and layout: plotly's."""
    return {"title": title, "about": about, "data": data, "layout": layout}


def trace(mode: str, x: Sequence[float], y: Sequence[float | None], **more: object) -> Figure:
    """Points or lines, with further fields of plotly's scatter trace."""
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **more}


def axis(title: str, **more: object) -> Figure:
    return {"title": {"text": title}, **more}


def symbol_of(number: int) -> str:
    return SYMBOLS[number % len(SYMBOLS)]
