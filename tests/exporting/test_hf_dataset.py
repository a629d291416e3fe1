"""The folder of a dataset, and the card in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from deita_tasks.exporting import hf_dataset, load_exporter
from deita_tasks.exporting.folder import export_folder
from deita_tasks.manifest import digest_outputs
from tests.support.report_data import SINGLE, TOOLS, conversation, manifest, rows


def front_matter(folder: Path) -> dict[str, Any]:
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(head)
    return loaded


def test_a_large_selection_lies_in_several_shards_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_dataset, "CHARACTERS_PER_SHARD", 100)
    conversations = [
        conversation(f"u: {i:04}", "a: xyz", extra={"n": i}) for i in range(41)
    ]  # 41 rows of 7 characters: 287
    paths = load_exporter("hf_dataset").export(rows(*conversations), tmp_path / "out")
    assert [path.name for path in paths] == [
        f"train-0000{shard}-of-00003.parquet" for shard in range(3)
    ]
    tables = [pq.read_table(path) for path in paths]
    assert [n for table in tables for n in table["n"].to_pylist()] == list(range(41))


def test_the_card_states_sources_counts_and_how_it_was_made(tmp_path: Path) -> None:
    export_folder(load_exporter("hf_dataset"), rows(SINGLE, TOOLS), tmp_path, manifest(selected=2))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    for line in (
        "# 2 conversations selected by DEITA",
        "Selected from a pool of 1,007 rows on 2026-01-02.",
        "| pool\\_a.jsonl | messages | 1,007 | sha256:12 |",
        "| budget | 2 |",
        "| embedding | sentence-transformers/all-MiniLM-L6-v2 | c9745ed1 | apache-2.0 |",
        "| too similar | 3 |",
        "| below budget | 1,000 |",
        "| deita\\_rank | int64 |",
        "The pool's rows state no licence.",
    ):
        assert line in card
    front = front_matter(tmp_path)
    assert front["license"] == "unknown"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]


def test_the_card_holds_the_fingerprints_as_json(tmp_path: Path) -> None:
    source = manifest(selected=2)
    export_folder(load_exporter("hf_dataset"), rows(SINGLE, TOOLS), tmp_path, source)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    block = card.split("```json\n")[1].split("\n```")[0]
    assert json.loads(block) == source.fingerprints
    assert block.count("\n") > 2


def test_the_card_counts_licences_and_sources_of_the_rows(tmp_path: Path) -> None:
    states = [("MIT", "a|b"), ("Apache-2.0", "c"), ("MIT", "c")]
    selected = [
        conversation(f"u: {i}", "a: b", extra={"licence": name, "source": source})
        for i, (name, source) in enumerate(states)
    ]
    export_folder(load_exporter("hf_dataset"), rows(*selected), tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| MIT | 2 |\n| Apache-2.0 | 1 |" in card
    assert "| c | 2 |\n| a\\|b | 1 |" in card
    assert "3 of the 3 conversations state a licence" in card
    assert front_matter(tmp_path)["license"] == ["apache-2.0", "mit"]


@pytest.mark.parametrize("stated", [["MIT", None], ["MIT", "my own"]])
def test_the_hub_s_licence_is_other_unless_every_row_states_one_that_the_hub_knows(
    stated: list[str | None], tmp_path: Path
) -> None:
    selected = [
        conversation(f"u: {i}", "a: b", extra={"license": name}) for i, name in enumerate(stated)
    ]
    export_folder(load_exporter("hf_dataset"), rows(*selected), tmp_path)
    assert front_matter(tmp_path)["license"] == "other"


def test_nothing_of_the_data_is_markup_in_the_card(tmp_path: Path) -> None:
    hostile = "<script>x</script>\n---\n# [a](javascript:b) | `c`"
    row = conversation("u: a", "a: b", extra={hostile: 1, "source": hostile, "license": hostile})
    export_folder(
        load_exporter("hf_dataset"),
        rows(row),
        tmp_path,
        manifest(selected=1, parameters={hostile: hostile}, preset=hostile),
    )
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "<script" not in card
    assert "\n# [" not in card
    assert "[a](" not in card
    assert (
        card.count("&lt;script&gt;x&lt;/script&gt; --- \\# \\[a\\](javascript:b) \\| \\`c\\`") >= 6
    )
    assert front_matter(tmp_path)["license"] == "other"


def test_outputs_are_digested_by_path_without_the_manifest_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_bytes(b"abc")
    (tmp_path / "manifest.json").write_bytes(b"{}")
    outputs = digest_outputs(tmp_path)
    assert outputs.keys() == {"data/a.txt"}
    # FIPS 180-2, appendix B.1
    assert (
        outputs["data/a.txt"].sha256
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert outputs["data/a.txt"].bytes == 3
