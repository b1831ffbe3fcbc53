"""The frame that all charts of a report share. Colours are `@N`, the page's own for light and dark;
`@text` and `@grid` are the page's.
"""

Figure = dict[str, object]  # JSON values, as plotly takes them
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "pentagon")


def plain(text: str) -> str:
    """A name as plotly shows it letter by letter: it reads some tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def chart(title: str, about: str, data: list[Figure], layout: Figure) -> Figure:
    """A chart as the page draws it. title and about: for its caption; data and layout: plotly's."""
    return {"title": title, "about": about, "data": data, "layout": layout}
