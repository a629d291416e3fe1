"""What a person sees: the deployment, its form filled in and refused, the run, and what it shows.
In Chromium, headless.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.reporting.report import build_report
from tests.e2e.conftest import CHEAP, FILES_URL, PATIENCE, Site, ended, screenshots, until
from tests.reporting.test_report import data, pool

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install 'deita-tasks[e2e]', or make e2e"
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("DEITA_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
LARGEST = 300_000  # bytes of a picture in the README

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="needs Chromium: apt-get install chromium, or name one in DEITA_CHROMIUM",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # Chromium's sandbox cannot be had by root, which is what CI runs as.
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Any, deployed: Site) -> Any:
    """A page that reaches this machine alone."""
    page = browser.new_page(
        viewport={"width": 1280, "height": 960},
        base_url=deployed.environment["PREFECT_API_URL"],
    )
    page.set_default_timeout(30_000)
    return page


@pytest.fixture
def picture(page: Any, tmp_path: Path) -> Callable[[str], None]:
    """Takes a picture of what the page shows: for the README where that was asked for, else beside
    the test.
    """
    folder = screenshots() or tmp_path
    folder.mkdir(parents=True, exist_ok=True)

    def take(name: str, *, top: Any = None, rest: float = 1500) -> None:
        if top is not None:
            top.evaluate(
                "one => { one.style.scrollMarginTop = '16px'; "
                "one.scrollIntoView({block: 'start'}) }"
            )
        page.mouse.move(0, 0)
        page.wait_for_timeout(rest)  # what moves has come to rest
        page.screenshot(path=folder / f"{name}.png")
        assert 5_000 < (folder / f"{name}.png").stat().st_size < LARGEST

    return take


def see(found: Any, milliseconds: float = 30_000) -> Any:
    playwright.expect(found).to_be_visible(timeout=milliseconds)
    return found


def submit(page: Any) -> None:
    page.get_by_role("button", name="Submit").click()


def submit_corrected(page: Any, refusal: Any) -> None:
    """Submit after a refusal. This version of the page may send nothing the first time, and only
    take its message back.
    """
    submit(page)
    playwright.expect(refusal).to_have_count(0, timeout=30_000)
    with suppress(playwright.TimeoutError):  # the page has gone on
        page.get_by_role("button", name="Submit").click(timeout=5_000)


def open_artifact(page: Any, run: str, key: str) -> None:
    """Open the artifact from its card on the run's page."""
    page.goto(run)
    page.get_by_role("link", name=key).first.click()
    page.wait_for_url("**/artifacts/artifact/**")


def test_a_person_fills_in_the_form_and_sees_the_result(
    page: Any, picture: Callable[..., None], deployed: Site, worker: Any
) -> None:
    page.goto("/v2/deployments")
    page.get_by_role("link", name="select", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()

    see(page.get_by_text("Files, folders, globs, s3:// or hf:// URIs", exact=False))
    assert page.get_by_text("Property is type", exact=False).count() == 0
    assert page.get_by_label("Budget (Optional)").bounding_box()["y"] < 960, "on the first screen"
    page.get_by_label("Run Name").fill("For March")
    picture("form")
    for kind, scorer in CHEAP["scoring"].items():
        page.get_by_role("button", name=f"Select {kind.capitalize()} scorer").click()
        page.get_by_role("option", name=scorer).click()
        playwright.expect(page.get_by_role("option")).to_have_count(0)  # it takes a moment to close

    budget, similarity = (
        page.get_by_label("Budget (Optional)"),
        page.get_by_label("Maximum similarity (Optional)"),
    )
    budget.fill("0")
    similarity.fill("5")
    submit(page)
    assert budget.evaluate("one => one.validationMessage"), "the browser sends no budget of 0"
    budget.fill("150" if screenshots() else "20")
    submit(page)
    refusal = see(page.get_by_text("5 is greater than the maximum of 1", exact=True))
    picture("refused", top=page.get_by_text("selection (Optional)"))
    similarity.fill("0.6" if screenshots() else "0.3")
    submit_corrected(page, refusal)
    page.wait_for_url(lambda url: "/run" not in url)

    page.get_by_role("link", name=re.compile("^(View run|For March)$")).first.click()
    page.wait_for_url("**/runs/flow-run/**")
    see(page.get_by_text("Completed", exact=True).first, 1000 * PATIENCE)
    run = page.url.partition("?")[0] + "?tab=Artifacts"
    page.goto(run)
    see(page.get_by_role("link", name="deita-report").first)
    see(page.get_by_text(re.compile(r"evaluation: \d+ of \d+ rows")).first)
    see(page.get_by_text("For March").first)
    picture("run", rest=10_000 if screenshots() else 1500)  # a run's graph takes its time

    open_artifact(page, run, "deita-report")
    histogram = see(page.get_by_role("img", name=re.compile("evol", re.IGNORECASE)).first)
    assert histogram.evaluate("one => one.complete && one.naturalWidth > 100")
    see(page.get_by_role("heading", name=re.compile(r"\d+ of \d+ rows selected")))

    folder = f"for-march-{run.partition('?')[0][-8:]}"
    output = deployed.root / "results" / "select" / folder
    link = page.get_by_role("link", name="report.html").first
    assert link.get_attribute("href") == f"{FILES_URL}/select/{folder}/report.html"

    for key, column in (("deita-best", "evol score"), ("deita-closest", "similarity")):
        open_artifact(page, run, key)
        see(page.get_by_role("columnheader", name=re.compile(column)).first)
        assert page.get_by_role("row").count() > 2
        score = page.get_by_role("cell", name=re.compile(r"^\d+\.\d\d$")).first
        playwright.expect(score).to_be_in_viewport()
        picture(key.removeprefix("deita-"))

    page.goto((output / "report.html").as_uri())
    for question in ("What did I get?", "Why these?", "What did I lose?"):
        see(page.get_by_role("heading", name=question).first)
    picture("report")


def is_answered(page: Any, form: Any, decision: str) -> bool:
    """Choose a decision and confirm it; return whether the form has closed.

    The page asks for the run's state all the time and may draw the form anew: then a person
    chooses again.
    """
    if not form.is_visible():
        return True
    choice = form.get_by_role("button", name="Select Decision")
    if choice.is_visible():
        choice.click()
        page.get_by_role("option", name=decision).click()
    form.get_by_role("button", name="Resume").click()
    page.wait_for_timeout(2_000)
    return not form.is_visible()


def test_a_person_approves_a_version(page: Any, deployed: Site, worker: Any) -> None:
    client = deployed.client
    output = deployed.root / "results" / "by-click"
    reselect = client.read_deployment_by_name("reselect-subset/reselect")
    export = {"output": str(output), "approve": True}
    parameters = {**reselect.parameters, **CHEAP, "export": export}
    run = client.create_flow_run_from_deployment(reselect.id, parameters=parameters).id
    until(lambda: client.read_flow_run(run).state.name == "Suspended")  # type: ignore[union-attr]
    page.goto(f"/v2/runs/flow-run/{run}")
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Resume").click()
    form = see(page.get_by_role("dialog"))
    see(form.get_by_text("rows are selected", exact=False))
    until(lambda: is_answered(page, form, "publish"))
    found = ended(client, run)
    assert found.state is not None
    assert found.state.name == "Completed", found.state.message
    [version] = (output / "versions").iterdir()
    assert (output / "latest").resolve() == version


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_fits_the_screen(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    report = tmp_path / "report.html"
    report.write_bytes(build_report(data(pool(text=" unbreakable" * 20 + "x" * 500))).html)
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(report.as_uri())
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ink, paper = (
        page.locator("header").evaluate(f"one => getComputedStyle(one).{name}")
        for name in ("color", "backgroundColor")
    )
    assert (brightness(ink) > brightness(paper)) == (scheme == "dark")
    label = page.locator(".plot svg text").first
    assert label.evaluate("one => getComputedStyle(one).fill") == ink
    page.close()


def brightness(colour: str) -> int:
    """The sum of red, green and blue of rgb(r, g, b)."""
    return sum(map(int, re.findall(r"\d+", colour)[:3]))
