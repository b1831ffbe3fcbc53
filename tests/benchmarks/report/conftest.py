"""An evaluation whose label maps are known, its report, and a browser without a network."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.benchmarks.evaluation import evaluate as evaluation_module
from attunet.benchmarks.evaluation.models import EvaluatedModel
from attunet.benchmarks.report.write_report import write_report
from attunet.config import DataConfig
from attunet.preparation.prepare import prepare
from attunet.store import Store
from attunet.volumes.model import NetworkModel

CASES = ("01-T2", "02-T2", "03-T2", "04-T2", "05-T2")
WINDOW = (0.0, 1100.0)
PATIENT = "DOE_JANE_19560803"  # of a folder of the source, which must not reach a report
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE = (960, 640)
GRAPHICS = "--enable-unsafe-swiftshader"  # WebGL without a GPU; the page itself is drawn without one faster

PUT_BACK = """() => {
  if (!caseBrowser) return;
  for (const box of document.querySelectorAll("#outlines input, #classes input")) box.checked = true;
  for (const id of ["opacity", "fill"]) byId(id).value = byId(id).defaultValue ?? "";
  document.getElementsByName("view")[0].checked = true;
  caseBrowser.resetWindow();
  caseBrowser.showView();
  caseBrowser.showLayers();
  caseBrowser.viewer.moveTo([...caseBrowser.about.worst]);
}"""


def by_brightness(slices: np.ndarray) -> np.ndarray:
    """Logits of the class that a pixel's brightness belongs to; the cases paint class k with 400 + 150 k."""
    intensity = (slices[:, 0] + 1) * WINDOW[1] / 2
    labels = np.clip(np.rint((intensity - 400) / 150), 0, 4).astype(int)
    return np.moveaxis(np.eye(5, dtype=np.float32)[labels], -1, 1)


def without_liver(slices: np.ndarray) -> np.ndarray:
    logits = by_brightness(slices)
    logits[:, 1] = -1
    return logits


def gates(slices: np.ndarray) -> tuple[np.ndarray, ...]:
    """Two maps of which the finer is open where the picture is bright."""
    fine = np.clip((slices[:, 0] + 1) / 2, 0, 1)
    return fine[:, ::2, ::2], fine


def evaluated(name: str, network: Callable[[np.ndarray], np.ndarray], store: Store, **gated: Any) -> EvaluatedModel:
    return EvaluatedModel(
        model=NetworkModel(
            name=name, network=network, spec=store.spec, classes=store.classes, num_parameters=7, **gated
        ),
        name=name,
        path=Path(name),
        backend="numpy",
        provider="cpu",
        precision="fp32",
        file_mb=0.5,
        timed_call=lambda slices: lambda: network(slices),
        options={},
    )


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory, write_case: Callable[..., Any]) -> Path:
    """The folder of an evaluation of a network that is right and of one that never finds the liver."""
    folder = tmp_path_factory.mktemp("report")
    for number, name in enumerate(CASES):
        write_case(folder / PATIENT, name, seed=number)
    store = prepare(
        folder / PATIENT, folder / "abdomen", DataConfig(normalization="ct", window=WINDOW, size=64), folds=3
    )
    made = [
        evaluated("right", by_brightness, store, num_gates=2, maps=gates),
        evaluated("no liver", without_liver, store),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_module, "load_models", lambda models, **_: made)
        patch.setattr(evaluation_module, "peak_memory_mb", lambda *_, **__: None)
        patch.setattr(evaluation_module, "draw_evaluation", lambda *_, **__: None)
        evaluation_module.evaluate(store.path, [], folder / "evaluation", latency_seconds=0.01)
    return folder / "evaluation"


@pytest.fixture(scope="session")
def report(evaluation: Path) -> Path:
    return write_report(evaluation)


@pytest.fixture(scope="session")
def first_case(evaluation: Path) -> str:
    cases: list[str] = json.loads((evaluation / "results.json").read_text())["store"]["cases"]
    return cases[0]


@pytest.fixture(scope="module")  # while it runs, nothing else in this process may start an event loop
def browser() -> Iterator[Any]:
    """Headless Chromium; tests are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, GRAPHICS])
        yield started
        started.close()


def open_offline(
    browser: Any, path: Path, said: list[str], *, size: tuple[int, int] = SIZE, scheme: str = "light"
) -> Any:
    """A tab without a network, for a file. What leaves it, and every error on its console, is added to `said`."""
    viewport = {"width": size[0], "height": size[1]}
    page = browser.new_page(viewport=viewport, color_scheme=scheme, offline=True, reduced_motion="reduce")
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    allowed = (path.as_uri(), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(allowed) else said.append(request.url))
    return page


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens files with the network off; at the end no request has left and no error was said on the console."""
    said: list[str] = []
    pages = []

    def open_one(path: Path, address: str = "", **look: Any) -> Any:
        pages.append(open_offline(browser, path, said, **look))
        pages[-1].goto(path.as_uri() + address)
        if "case=" in address:
            pages[-1].wait_for_selector("#stage[data-case]")
        return pages[-1]

    yield open_one
    for page in pages:
        page.close()
    assert said == []


@pytest.fixture(scope="module")
def shared_page(browser: Any, report: Path) -> Iterator[tuple[Any, list[str]]]:
    said: list[str] = []
    page = open_offline(browser, report, said)
    page.goto(report.as_uri())
    yield page, said
    page.close()


@pytest.fixture
def page(shared_page: tuple[Any, list[str]]) -> Iterator[Any]:
    """The report in a tab that tests share, since NiiVue's shaders take seconds to compile in software: its size,
    colours and controls are put back after each.
    """
    page, said = shared_page
    yield page
    page.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})
    page.emulate_media(color_scheme="light")
    page.evaluate(PUT_BACK)
    wrong = said.copy()
    said.clear()
    assert wrong == []
