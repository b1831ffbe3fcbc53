"""`/`, `/docs` and `/metrics`, for people and Prometheus. No page loads anything from another server."""

import html
from collections.abc import Iterable
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from attunet.errors import InputError
from attunet.export.serve.routes.context import service_of
from attunet.export.serve.routes.description import ERRORS
from attunet.export.web.niivue import niivue

router = APIRouter(include_in_schema=False)

PAGES = {  # address: file and its type
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/viewer.js": ("viewer.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}


@router.get(
    "/metrics", include_in_schema=True, tags=["Operation"], summary="Counts and times for Prometheus", responses=ERRORS
)
def metrics(request: Request) -> Response:
    content = generate_latest(service_of(request).metrics.registry)
    return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/niivue.js")
def viewer() -> Response:
    """NiiVue, where the package that carries it is installed."""
    try:
        return Response(niivue(), media_type="text/javascript", headers=POLICY)
    except InputError as error:
        return Response(str(error), status_code=404, media_type="text/plain")


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """The description at `/openapi.json` as one page without scripts."""
    description = request.app.openapi()
    rows = [
        _operation(method, path, operation)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    ]
    title = html.escape(f"{description['info']['title']} {description['info']['version']}")
    links = '<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">'
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>{links}'
    about = html.escape(description["info"]["description"])
    intro = f'<main><h1>{title}</h1><p>{about} <a href="/openapi.json">openapi.json</a></p>'
    return HTMLResponse(head + intro + "".join(rows) + "</main></html>", headers=POLICY)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    title, summary = html.escape(f"{method.upper()} {path}"), html.escape(operation.get("summary", ""))
    parts = [f"<section><h2><code>{title}</code></h2><p>{summary}</p>"]
    if parameters := operation.get("parameters"):
        rows = [(p["name"], p["in"], p.get("description", "")) for p in parameters]
        parts.append(_table(("parameter", "in", ""), rows))
    if body := operation.get("requestBody"):
        text = f"{body.get('description', '')} ({', '.join(body['content'])})"
        parts.append(f"<p>Body: {html.escape(text)}</p>")
    answers = operation["responses"].items()
    rows = [(status, a.get("description", ""), ", ".join(a.get("content", {}))) for status, a in answers]
    parts.append(_table(("status", "", "content"), rows))
    return "".join(parts) + "</section>"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def _file(name: str, media_type: str) -> Response:
    content = (files("attunet.export.serve") / "pages" / name).read_bytes()
    return Response(content, media_type=media_type, headers=POLICY)


for _address, (_name, _media_type) in PAGES.items():
    router.add_api_route(_address, partial(_file, _name, _media_type), response_model=None)
