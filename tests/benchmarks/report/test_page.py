"""The page of a report in a browser: nothing is fetched, tables sort, a row leads to its case,
and outlines lie on the label maps.
"""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet.benchmarks.evaluation.saved_cases import save_case, save_prediction
from attunet.benchmarks.report.write_report import write_report
from attunet.evaluate_case import LabelledCase
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume

Image = pytest.importorskip("PIL.Image")
OpenPage = Callable[..., Any]
CASE = "01-T2"  # among the worst three, which the report has to look at
VOXEL = (2.0, 2.0)  # mm, of the generated cases


def truth_of(evaluation: Path, case: str) -> np.ndarray:
    """The labels of a generated case from its source file, its first axis turned to run to the patient's right."""
    (file,) = evaluation.parent.glob(f"DOE*/{case}-mask.nii.gz")
    return np.asarray(nib.load(file).dataobj, dtype=int)[::-1]


def place_of(page: Any, shape: tuple[int, ...]) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From voxels' edges of an axial slice to pixels of the canvas:
    as large as fits, in the middle, the patient's right on the left.
    """
    width, height = page.evaluate("[byId('overlay').width, byId('overlay').height]")
    scale = min(width / (shape[0] * VOXEL[0]), height / (shape[1] * VOXEL[1]))
    across, down = scale * VOXEL[0], scale * VOXEL[1]
    left, top = (width - shape[0] * across) / 2, (height - shape[1] * down) / 2
    return lambda u: left + (shape[0] - u) * across, lambda v: top + (shape[1] - v) * down


def outline_pixels(page: Any, places: list[tuple[int, int]]) -> list[list[int]]:
    """Red, green, blue and alpha of the outlines at pixels (x, y) of the canvas."""
    script = """(places) => {
      const {width, height} = byId("overlay");
      const {data} = byId("overlay").getContext("2d").getImageData(0, 0, width, height);
      return places.map(([x, y]) => [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 4)]);
    }"""
    pixels: list[list[int]] = page.evaluate(script, places)
    return pixels


def scan(page: Any) -> np.ndarray:
    """The pixels that a reader sees of the scan, with what lies over it `(rows, columns, RGB)`."""
    return np.array(Image.open(io.BytesIO(page.locator(".frame").screenshot())).convert("RGB"), dtype=int)


def show_case(page: Any, case: str, slice_number: int) -> None:
    page.evaluate(f"location.hash = 'case={case}&slice={slice_number}'")
    page.wait_for_selector(f"#stage[data-case='{case}']")
    page.wait_for_function(f"byId('place').textContent === '{slice_number} / 6'")


def settle(page: Any) -> None:
    """Until a frame has been shown since the last change."""
    page.evaluate("new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)))")


def draw_charts(page: Any) -> None:
    page.evaluate("Promise.all(charts.filter((box) => !box.drawn).map(drawChart))")


def test_everything_is_in_the_file_and_all_charts_are_drawn(page: Any) -> None:
    charts = page.locator("[data-chart]")
    for number in range(charts.count()):
        charts.nth(number).scroll_into_view_if_needed()
        charts.nth(number).locator("svg.main-svg").first.wait_for()
    drawn = set(page.evaluate("charts.map((box) => box.dataset.chart)"))
    assert drawn == {"per-case", "per-organ", "pareto", "time", "confusion-0", "confusion-1"}
    assert page.inner_text("h1").startswith("right (numpy cpu) reaches a mean Dice of 1.000 (95 % interval")
    assert "Not a medical device" in page.inner_text("#answer")


def test_tables_sort_by_every_column_and_say_so(page: Any) -> None:
    header = page.locator("#cases-table th", has_text="Dice").first
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    column = page.locator("#cases-table tbody tr td:nth-child(3)")
    values = [float(text) for text in column.all_inner_texts()]
    assert values == sorted(values)
    header.get_by_role("button").press("Enter")
    assert [float(text) for text in column.all_inner_texts()] == sorted(values, reverse=True)
    assert page.inner_text("#announcement") == "Scores per case sorted by Dice, descending"


def test_a_desktop_shows_the_models_table_whole(page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    hidden_width = """name => {
      const cells = [...document.querySelectorAll("#models tbody tr")].map((row) => row.cells[0]);
      const names = cells.map((cell) => cell.textContent), box = document.querySelector(".scroll:has(#models)");
      cells.forEach((cell) => { cell.textContent = name; });
      const width = box.scrollWidth - box.clientWidth;
      cells.forEach((cell, n) => { cell.textContent = names[n]; });
      return width;
    }"""
    assert page.evaluate(hidden_width, "attention_unet (onnxruntime cpu)") == 0


def test_a_figure_says_how_it_was_got(page: Any) -> None:
    show_case(page, CASE, 3)  # what is above the table has its height
    page.evaluate("byId('models').scrollIntoView({block: 'center'})")
    settle(page)
    page.locator("#models tbody tr").first.locator("td").nth(1).hover()
    page.wait_for_function("byId('hint').textContent.includes('5 cases')")
    assert "2 TP / (2 TP + FP + FN)" in page.inner_text("#hint")


def test_a_row_leads_to_its_case_and_the_address_to_a_slice(page: Any) -> None:
    shown = page.locator("#cases-table a").all_inner_texts()
    assert len(set(shown)) == 3  # the worst three
    link = page.locator("#cases-table a").last
    name = link.inner_text()
    link.click()
    page.wait_for_selector(f"#stage[data-case='{name}']")
    page.wait_for_function(f"/^#case={name}&slice=\\d$/.test(location.hash)")
    page.locator("#slice").fill("2")
    assert page.evaluate("location.hash") == f"#case={name}&slice=2"
    page.locator("#scan").focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_function("byId('place').textContent === '3 / 6'")
    assert page.evaluate("location.hash").endswith("&slice=3")
    show_case(page, shown[0], 5)


def test_outlines_lie_on_the_borders_of_the_label_map(page: Any, evaluation: Path) -> None:
    show_case(page, CASE, 4)
    page.locator("#outlines input").nth(1).uncheck()  # the right network's outline is the truth's
    page.locator("#outlines input").nth(2).uncheck()
    page.evaluate("caseBrowser.viewer.moveTo([0, 0, 3])")  # the crosshair's lines are at the edge of the scan
    labels = truth_of(evaluation, CASE)[:, :, 3]
    x, y = place_of(page, labels.shape)

    def on_edges(edges: list[tuple[int, int]]) -> list[list[int]]:
        return outline_pixels(page, [(round(x(u)), round(y(v + 0.5))) for u, v in edges])

    edges = [(u, v) for u in range(1, 48) for v in range(40) if labels[u - 1, v] != labels[u, v]]
    assert len(edges) > 40
    for edge, (red, green, blue, alpha) in zip(edges, on_edges(edges), strict=True):
        assert red == green == blue > 150, edge  # white, but for the smoothing of the line's rim
        assert alpha > 200
    inside = [
        (u, v) for u in range(1, 47) for v in range(1, 39) if len(np.unique(labels[u - 1 : u + 2, v - 1 : v + 2])) == 1
    ]
    middles = outline_pixels(page, [(round(x(u + 0.5)), round(y(v + 0.5))) for u, v in inside])
    assert len(middles) > 500
    assert {alpha for *_, alpha in middles} == {0}
    page.locator("#classes input").first.uncheck()
    liver = [(u, v) for u, v in edges if {labels[u - 1, v], labels[u, v]} == {0, 1}]
    assert len(liver) > 10
    assert all(alpha < 200 for *_, alpha in on_edges(liver))


def test_layers_lie_where_their_labels_are(page: Any, evaluation: Path) -> None:
    show_case(page, CASE, 3)
    for box in page.locator("#outlines input").all():
        box.uncheck()
    labels = truth_of(evaluation, CASE)[:, :, 2]
    x, y = place_of(page, labels.shape)
    ratio = page.evaluate("devicePixelRatio")

    def color_at(index: int) -> tuple[int, int, int]:
        u, v = (int(i) for i in np.median(np.argwhere(labels == index), axis=0))
        r, g, b = scan(page)[round(y(v + 0.25) / ratio), round(x(u + 0.25) / ratio)]
        return int(r), int(g), int(b)

    grey = color_at(1)
    assert max(grey) - min(grey) < 4
    page.locator("#opacity").fill("100")
    # The second misses the liver
    for option, liver in (("labels:truth", (0xE6, 0x9F, 0x00)), ("difference:1", (0x56, 0xB4, 0xE9))):
        page.locator("#fill").select_option(option)
        page.wait_for_selector(f"#stage[data-fill='{option}']")
        settle(page)
        assert np.abs(np.subtract(color_at(1), liver)).max() < 12, option
    assert max(color_at(4)) - min(color_at(4)) < 4  # the spleen is no difference
    page.locator("#fill").select_option(label="attention of right (numpy cpu): gate 2 (finest)")
    page.wait_for_selector("#stage[data-fill^='attention']")
    assert 0 <= float(page.locator("#readout div", has_text="Attention").locator("dd").inner_text()) <= 1


def test_the_crosshair_tells_value_and_classes(page: Any, evaluation: Path) -> None:
    show_case(page, CASE, 3)
    labels = truth_of(evaluation, CASE)[:, :, 2]
    x, y = place_of(page, labels.shape)
    u, v = (int(i) for i in np.median(np.argwhere(labels == 4), axis=0))
    ratio = page.evaluate("devicePixelRatio")
    page.locator("#scan").click(position={"x": x(u + 0.5) / ratio, "y": y(v + 0.5) / ratio})
    rows = dict(
        zip(page.locator("#readout dt").all_inner_texts(), page.locator("#readout dd").all_inner_texts(), strict=True)
    )
    assert rows["Truth"] == rows["right (numpy cpu)"] == rows["no liver (numpy cpu)"] == "spleen"
    assert rows["Voxel"] == f"{u + 1}, {v + 1}, 3"
    assert float(rows["Value"]) == pytest.approx(1000, abs=60)  # the spleen's brightness, with the noise


def test_grey_values_and_planes(page: Any) -> None:
    show_case(page, CASE, 3)
    before = scan(page).mean()
    page.locator("#level").fill(str(page.evaluate("Number(byId('level').min) + 20")))
    settle(page)
    assert scan(page).mean() > before + 5
    page.locator("#reset").click()
    settle(page)
    assert scan(page).mean() == pytest.approx(before, abs=0.5)
    page.get_by_label("three planes").check()
    settle(page)
    assert page.evaluate("caseBrowser.viewer.niivue.screenSlices.map((tile) => tile.axCorSag)") == [0, 1, 2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    show_case(page, CASE, 3)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    draw_charts(page)
    violations = axe.run(page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
    assert serious == []


def test_names_in_charts_are_names(open_page: OpenPage, evaluation: Path, tmp_path: Path) -> None:
    """Classes may be called as numbers, cases as the page's own colours, and models as plotly's fields."""
    text = (evaluation / "results.json").read_text()
    numbers = {"liver": "10", "right kidney": "3", "left kidney": "4", "spleen": "2"}
    for name, other in (numbers | {"01-T2": "@text", "no liver": "%{y}"}).items():
        text = text.replace(f'"{name}"', f'"{other}"')
    (tmp_path / "results.json").write_text(text)
    page = open_page(write_report(tmp_path))
    draw_charts(page)
    chart = "document.querySelector('[data-chart=\"{}\"]')"
    confusion = chart.format("confusion-0")
    assert page.evaluate(f"{confusion}._fullLayout.xaxis.type") == "category"
    assert {"background", "10", "2"} <= set(page.evaluate(f"{confusion}._fullLayout.xaxis._categories"))
    points = chart.format("per-organ") + "._fullData.filter((one) => one.customdata)"
    assert "@text" in page.evaluate(f"{points}[0].text")
    assert all("%{y}<" not in template for template in page.evaluate(f"{points}.map((one) => one.hovertemplate)"))


def test_a_phone_shows_all_of_it(open_page: OpenPage, report: Path) -> None:
    page = open_page(report, f"#case={CASE}&slice=2", size=(390, 844))
    page.wait_for_function("byId('place').textContent === '2 / 6'")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    frame = page.locator(".frame").bounding_box()
    assert frame["width"] > 330
    assert frame["height"] > 330


def test_it_prints(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    assert page.pdf().startswith(b"%PDF")


def test_pictures_are_shown_in_their_colours_the_right_way_up(
    open_page: OpenPage, evaluation: Path, first_case: str, tmp_path: Path
) -> None:
    shutil.copy(evaluation / "results.json", tmp_path)
    picture = np.zeros((3, 30, 20, 1), dtype=np.uint8)  # columns, rows
    picture[0, :10, :5] = 255  # red at the top left
    labels = np.zeros((30, 20, 1), dtype=np.uint8)
    labels[:10, :5] = 1
    volume = Volume(picture, np.eye(4), unit="pixel")
    spec = PreprocessSpec(
        orientation=None, slice_axis=2, spacing_mm=None, size=(32, 32), normalization="none", num_channels=3
    )
    case = LabelledCase(first_case, volume, labels, np.array([True, True]))
    save_case(tmp_path / "cases" / first_case, case, spec)
    save_prediction(tmp_path / "cases" / first_case / "prediction-0.npz", labels, volume, spec)
    page = open_page(write_report(tmp_path), f"#case={first_case}")
    for box in page.locator("#outlines input").all():
        box.uncheck()
    settle(page)
    assert page.locator("#grey").is_hidden()
    assert page.locator("#planes").is_hidden()
    pixels = scan(page)
    red = np.argwhere((pixels[..., 0] > 200) & (pixels[..., 1] < 60))
    height, width = pixels.shape[:2]
    assert red[:, 0].max() < height / 2
    assert red[:, 1].max() < width / 2
    assert len(red) > 1000
