"""`deita explore` as a person uses it: filter by a bar, search, open a row, look at a pair. In
Chromium, headless. Without WebGPU, which headless browsers mostly lack, there is no map.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from deita_tasks import storage
from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool, pool_uri
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import write_selection
from deita_tasks.conversations import Conversation, SourceRow, Turn
from deita_tasks.manifest import InputFile
from deita_tasks.records import ModelOutput
from tests.conftest import ROOT
from tests.e2e.test_browser import CHROMIUM, playwright, see
from tests.support.small_store import FOLDERS, conversations, part_set

pytest.importorskip("embedding_atlas", reason="needs pip install 'deita-tasks[explore]'")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

# What a text of a pool may try: to run as HTML, and to be taken for a template.
HOSTILE = '<img src="x" onerror="window.hacked = 1"><script>window.hacked = 1</script>'
TEMPLATE = "{{ 6 | times: 7 }}"
WIDTH, HEIGHT = 1440, 900


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a selection. Limit 0.9; vectors are (1, n), that of the last row (1, -1).

    Selected are the rows 4, 1 and 5. Rows 3 and 2 are too similar to 4: 0.997 and 0.976.
    """
    store = str(tmp_path_factory.mktemp("explore"))
    turns = (Turn("user", HOSTILE), Turn("assistant", TEMPLATE))
    rows = [*conversations(1, 2, 3, 4), Conversation(turns, SourceRow("pool.jsonl", 5))]
    uri = pool_uri(store, storage.digest_of("explore"))
    write_pool(uri, iter(rows), [InputFile(uri="pool.jsonl", digest="", rows=5, format="x")])
    ids = [row.id for row in rows]
    whole = np.zeros(5, np.int32)
    scores = ModelOutput(np.array([1, 2, 3, 4, 1.5], np.float32), whole)
    vectors = ModelOutput(np.array([[1, 1], [1, 2], [1, 3], [1, 4], [1, -1]], np.float32), whole)
    stage_parts = {}
    for stage in FOLDERS:
        is_embedding = stage == "embedding"
        table = vector_table(ids, vectors) if is_embedding else score_table(ids, [1] * 5, scores)
        parts = part_set(store, stage)
        digest = parts.write(ids_digest(table["id"]), [table])
        stage_parts[stage] = StageParts(part_set=parts, digests=[digest])
    selection = storage.join(store, "selections", storage.digest_of("selection"))
    options = {"budget": 5, "max_similarity": 0.9}
    write_selection(selection, Pool.open(uri), stage_parts, {"name": "diverse", "options": options})
    return store


@pytest.fixture(scope="module")
def address(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `deita explore` serves the store. Ctrl-C ends it without complaint."""
    cache = str(tmp_path_factory.mktemp("cache"))
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "flows.cli", "explore", store, "--no-browser"],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    yield next(line.strip() for line in lines if line.startswith("http"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """The page, which asks nobody but its own server for anything."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        see(page.get_by_text("5 / 5 points"), 120_000)
        yield page
        server = address.rsplit("/", 2)[0]
        others = [url for url in asked if not url.startswith((server, "data:", "blob:"))]
        assert others == []
        browser.close()


def shown_rows(page: Any) -> Any:
    return page.locator("table").last.locator("tbody tr")


def test_a_bar_filters_the_table_and_a_row_shows_its_texts(page: Any) -> None:
    playwright.expect(shown_rows(page)).to_have_count(5)
    page.locator("button[title=too_similar]").click()
    see(page.get_by_text("2 / 5 points"))
    playwright.expect(shown_rows(page)).to_have_count(2)
    first = shown_rows(page).first
    see(first.get_by_text("question 2"))
    first.click()

    page.get_by_role("button", name="Pairs").click()
    cards = page.locator("button", has_text="to the selected row below")
    playwright.expect(cards).to_have_count(2)
    see(page.get_by_text("2 / 5 points"))
    closest = cards.first
    see(closest.get_by_text("too_similar"))
    see(closest.get_by_text("nearest_similarity 0.997"))
    see(closest.get_by_text("question 3"))
    see(closest.get_by_text("question 4"))


def test_a_histogram_filters(page: Any) -> None:
    """Its evol scores are 1, 4, 9, 16 and 2.25."""
    chart = page.get_by_role("button", name="evol_score").locator("xpath=../..")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.75, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.99, middle, steps=5)
    page.mouse.up()
    see(page.get_by_text("1 / 5 points"))
    see(shown_rows(page).first.get_by_text("question 4"))
    page.keyboard.press("Escape")
    see(page.get_by_text("5 / 5 points"))


def test_texts_are_searched(page: Any) -> None:
    texts = page.get_by_text("question 3")
    playwright.expect(texts).to_have_count(1)  # in the table
    page.get_by_role("button", name="Search").click()
    page.locator("input[type=search]").fill("question 3")
    see(texts.nth(1))  # in the list of what was found


def test_a_text_of_the_pool_is_shown_and_never_run(page: Any) -> None:
    row = shown_rows(page).filter(has_text=TEMPLATE)
    see(row.get_by_text(HOSTILE))
    page.get_by_role("button", name="Pairs").click()
    see(page.get_by_text("2 / 5 points"))
    page.locator("button[title=selected]").click()
    see(page.get_by_text(HOSTILE).first)
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("window.hacked") is None
