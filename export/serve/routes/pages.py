"""`/`, `/docs` and `/metrics`: what people and Prometheus look at. Everything is served from here;
no page loads from elsewhere.
"""

import html
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from attunet.export.serve.routes.context import service_of
from attunet.export.serve.routes.description import ERRORS

router = APIRouter(include_in_schema=False)

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
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/")
def page() -> Response:
    return _file("index.html", "text/html")


@router.get("/page.js")
def page_script() -> Response:
    return _file("page.js", "text/javascript")


@router.get("/viewer.js")
def viewer_script() -> Response:
    return _file("viewer.js", "text/javascript")


@router.get("/style.css")
def style() -> Response:
    return _file("style.css", "text/css")


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
    intro = (
        f"<main><h1>{title}</h1><p>{html.escape(description['info']['description'])} <a "
        'href="/openapi.json">openapi.json</a></p>'
    )
    return HTMLResponse(head + intro + "".join(rows) + "</main></html>", headers=POLICY)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [
        f"<section><h2><code>{method.upper()} "
        f"{html.escape(path)}</code></h2><p>{html.escape(operation.get('summary', ''))}</p>"
    ]
    if parameters := operation.get("parameters"):
        rows = [(p["name"], p["in"], p.get("description", "")) for p in parameters]
        parts.append(_table(("parameter", "in", ""), rows))
    if body := operation.get("requestBody"):
        parts.append(
            f"<p>Body: {html.escape(body.get('description', ''))} ({html.escape(', '.join(body['content']))})</p>"
        )
    answers = [
        (status, a.get("description", ""), ", ".join(a.get("content", {})))
        for status, a in operation["responses"].items()
    ]
    parts.append(_table(("status", "", "content"), answers))
    return "".join(parts) + "</section>"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


@cache
def _content(name: str) -> bytes:
    return (files("attunet.export.serve") / "pages" / name).read_bytes()


def _file(name: str, media_type: str) -> Response:
    return Response(_content(name), media_type=media_type, headers=POLICY)
