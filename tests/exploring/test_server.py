"""Who the server of the explorer answers, and what the page is told. Needs the extra explore."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deita_tasks.errors import MissingExtra, OutputExists, UsageError
from deita_tasks.exploring import server
from deita_tasks.exploring.page import page_properties
from deita_tasks.exploring.table import ExplorerTable

TOKEN = "s3cret"
TABLE = ExplorerTable(
    pa.table(
        {
            "__row": [0, 1],
            "decision": ["selected", "too_similar"],
            "text": ["<img src=x onerror=alert(1)>", "b"],
            "nearest_id": [None, "0"],
            "nearest_similarity": [None, 0.5],
            "nearest_text": [None, "a"],
        }
    ),
    numbers=["nearest_similarity"],
    categories=["decision"],
)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    pytest.importorskip("embedding_atlas", reason="needs pip install 'deita-tasks[explore]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from starlette.testclient import TestClient

    app = server.make_app(TABLE, "test", TOKEN)
    return TestClient(app, base_url="http://127.0.0.1:8000")


def test_only_names_of_this_machine_are_answered(client: Any) -> None:
    """Another name is that of a page which had its own address changed to ours."""
    place = f"/{TOKEN}/data/metadata.json"
    assert client.get(place).status_code == 200
    assert client.get(place, headers={"Host": "localhost:8000"}).status_code == 200
    for host in ("rebound.example", "127.0.0.1.example:8000", ""):
        assert client.get(place, headers={"Host": host}).status_code == 400, host


def test_nothing_is_told_without_the_token(client: Any) -> None:
    query = {"sql": "SELECT text FROM dataset ORDER BY __row", "type": "json"}
    told = client.post(f"/{TOKEN}/data/query", json=query).json()
    assert told == [{"text": text} for text in TABLE.rows["text"].to_pylist()]
    for place in ("/data/query", "/", "/other/data/query", f"/{TOKEN[:-1]}/data/query"):
        assert client.post(place, json=query).status_code in (404, 405), place
        assert client.get(place).status_code == 404, place


def test_a_query_reads_no_file_of_the_machine(client: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    sql = f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')"
    answer = client.post(f"/{TOKEN}/data/query", json={"sql": sql, "type": "json"})
    assert answer.status_code == 500
    assert "disabled" in answer.json()["error"]


def test_the_page_may_load_nothing_from_elsewhere(client: Any) -> None:
    answer = client.get(f"/{TOKEN}/")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy and "unsafe-eval" not in policy.replace("wasm-unsafe-eval", "")
    assert answer.headers["Referrer-Policy"] == "no-referrer", "the address holds the token"


def test_an_export_is_a_page_with_its_data(client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    server.export_page(TABLE, "test", str(folder))
    assert pq.read_table(folder / "data" / "dataset.parquet").equals(TABLE.rows)
    told = json.loads((folder / "data" / "metadata.json").read_text())
    assert told["props"] == page_properties(TABLE)
    assert (folder / "index.html").is_file()
    assert [path.name for path in tmp_path.glob(".copy*")] == []
    with pytest.raises(OutputExists, match="not empty; expected a new folder"):
        server.export_page(TABLE, "test", str(folder))
    with pytest.raises(UsageError, match="expected a folder of this machine"):
        server.export_page(TABLE, "test", "s3://bucket/copy")


def test_the_page_escapes_texts_and_draws_no_map_without_places() -> None:
    properties = page_properties(TABLE)
    charts = properties["initialState"]["charts"]
    assert "map" not in charts and "projection" not in properties["data"]
    templates = [
        style["options"]["template"]
        for style in properties["initialState"]["columnStyles"].values()
    ]
    templates.append(charts["pair cards"]["cardTemplate"])
    for template in templates:
        values = [piece.partition("}}")[0] for piece in template.split("{{")[1:]]
        assert values and all("| escape" in value or "| round" in value for value in values)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'deita-tasks\[explore\]'"):
        server.require_packages()


def test_a_port_that_is_taken_is_named() -> None:
    with server.listen(None) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(UsageError, match=f"--port {port}: Address already in use"):
            server.listen(port)
