"""The report in Firefox, from disk and without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest
from firefox import CLOSED_PORT, Firefox

CHARTS = "document.querySelectorAll('[data-chart]')"
FETCHED = (
    "performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !/^(data|blob):/.test(name))"
)


@pytest.fixture(scope="module")
def firefox(start_firefox: Callable[..., Firefox]) -> Firefox:
    """Whatever it fetches goes to a proxy that is not there."""
    proxy: dict[str, bool | int | str] = {"network.proxy.type": 1, "network.proxy.no_proxies_on": ""}
    for scheme in ("http", "ssl"):
        proxy |= {f"network.proxy.{scheme}": "127.0.0.1", f"network.proxy.{scheme}_port": CLOSED_PORT}
    return start_firefox(proxy)


def test_the_report_works_in_firefox_and_fetches_nothing(firefox: Firefox, report: Path) -> None:
    firefox.open(report.as_uri())
    assert str(firefox.run("return document.querySelector('h1').innerText")).startswith(
        "right (numpy cpu) reaches a mean Dice of 1.000"
    )
    assert firefox.run(f"return {CHARTS}.length") == 6
    for number in range(6):
        firefox.run(f"{CHARTS}[{number}].scrollIntoView()")
        firefox.wait_for(f"{CHARTS}[{number}].querySelector('svg.main-svg')")
    header = "[...document.querySelectorAll('#cases-table th')].find((one) => one.innerText.includes('Dice'))"
    firefox.run(f"{header}.querySelector('button').click()")
    firefox.wait_for(f"{header}.getAttribute('aria-sort') === 'ascending'")
    assert firefox.run(f"return {FETCHED}") == []


def test_the_case_browser_works_in_firefox(firefox: Firefox, report: Path) -> None:
    firefox.open(report.as_uri())
    name = firefox.run(
        "const link = [...document.querySelectorAll('#cases-table a')].at(-1); link.click(); return link.innerText"
    )
    firefox.wait_for(f"document.querySelector('#stage').dataset.case === '{name}'")
    overlay, place = "document.querySelector('#overlay')", "document.querySelector('#place').textContent"
    firefox.run("location.hash = arguments[0]", f"case={name}&slice=4")
    firefox.wait_for(f"{place} === '4 / 6'")
    firefox.wait_for(
        f"{overlay}.getContext('2d').getImageData(0, 0, {overlay}.width, {overlay}.height).data.some((value) => value "
        "> 0)"
    )
    shown = firefox.screenshot()
    firefox.run("location.hash = arguments[0]", f"case={name}&slice=2")
    firefox.wait_for(f"{place} === '2 / 6'")
    assert firefox.screenshot() != shown
