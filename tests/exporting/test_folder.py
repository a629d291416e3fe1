"""A subset's folder as the `datasets` library reads it: the subset, and never another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.exporting import FORMATS, load_exporter
from deita_tasks.exporting.features import describe_features
from deita_tasks.exporting.folder import export_folder
from deita_tasks.manifest import digest_outputs
from deita_tasks.results import versions
from tests.support.report_data import SECOND, SINGLE, conversation, manifest, rows

Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """load_dataset of a folder, with one cache for the whole test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def load_folder(folder: Path, **options: Any) -> list[dict[str, Any]]:
        cache = str(tmp_path / "cache")
        return list(datasets.load_dataset(str(folder), split="train", cache_dir=cache, **options))

    return load_folder


def write(folder: Path, *conversations: Conversation, name: str = "messages") -> None:
    export_folder(load_exporter(name), rows(*conversations), folder)


def front_matter(folder: Path) -> dict[str, Any]:
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(head)
    return loaded


def with_extra(**extra: Any) -> Conversation:
    return conversation("u: Why?", "a: Because.", extra=extra)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_the_subset_is_loaded_and_nothing_else(
    name: str, streaming: bool, load: Load, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    write(folder, SINGLE, SECOND, name=name)
    for other in ("decisions.parquet", "changes.parquet"):
        write(tmp_path / "else", SINGLE, name="parquet")
        (tmp_path / "else" / "selected.parquet").rename(folder / other)
    (folder / "manifest.json").write_text('{"not": "a row"}')
    (folder / "changes.json").write_text('{"neither": 1}')
    (folder / "report.html").write_text("<!doctype html>")
    loaded = load(folder, streaming=streaming)
    assert [row["id"] for row in loaded] == [7, 8]
    assert [row["tags"] for row in loaded] == [["maths", "easy"], []]
    assert [row["deita_rank"] for row in loaded] == [1, 2]


@pytest.mark.parametrize("name", FORMATS)
def test_another_subset_of_the_same_size_is_loaded_anew(
    name: str, load: Load, tmp_path: Path
) -> None:
    for word in ("one", "two"):
        write(tmp_path / "out", with_extra(word=word), name=name)
        assert [row["word"] for row in load(tmp_path / "out")] == [word]


def test_latest_is_loaded_anew_when_it_moves(load: Load, tmp_path: Path) -> None:
    for day, word in enumerate(("one", "two"), 1):
        version = f"2026010{day}T000000Z-{day:016x}"
        write(tmp_path / "versions" / version, with_extra(word=word))
        versions.move_latest(str(tmp_path), version)
        assert [row["word"] for row in load(tmp_path / "latest")] == [word]


MIXED: list[list[Any]] = [
    [1, "a"],
    [1, 2.5],
    [True, 0],
    [{"a": 1}, {"b": [2]}],
    [{"a": None}, {"a": {"x": 1}}],
    [[], [{"a": 1}, {"b": "c"}]],
    ["2024-05-01", "unknown"],
    ["2024-05-01 10:00:00", "2024-05-02 10:00:00"],
    [{"day": "2024-05-01"}, {"day": "2024-05-02"}],
    [2**53 + 1, 1],
    [{}, {}],
    [[[1]], [["a"]]],
    ["null", "true"],
    ["2024-05-01", "4"],
    [[1, "4"], ["[2]"]],
    [{"a": [1]}, {"a": "4"}],
]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["messages", "parquet", "input"])
@pytest.mark.parametrize("values", MIXED, ids=repr)
def test_values_of_all_types_are_loaded_as_they_are(
    values: list[Any], name: str, streaming: bool, load: Load, tmp_path: Path
) -> None:
    write(tmp_path / "out", *[with_extra(value=value, n=i) for i, value in enumerate(values)])
    assert [row["value"] for row in load(tmp_path / "out", streaming=streaming)] == values


@pytest.mark.parametrize("name", ["messages", "sharegpt"])
def test_texts_that_are_json_stay_texts(name: str, load: Load, tmp_path: Path) -> None:
    answers = ["4", "[1, 2]", '{"a": 1}', "null", "2024-05-01", "true"]
    write(tmp_path / "out", *[conversation("u: q", f"a: {text}") for text in answers], name=name)
    column, key = {"messages": ("messages", "content"), "sharegpt": ("conversations", "value")}[
        name
    ]
    assert [row[column][1][key] for row in load(tmp_path / "out")] == answers


def test_a_tool_call_has_its_own_arguments_and_no_others(load: Load, tmp_path: Path) -> None:
    """Guessing types, `datasets` gives every call the arguments of all."""
    arguments: list[dict[str, Any]] = [{"city": "Paris"}, {"numbers": [1, 2], "exact": True}]
    conversations = []
    for value in arguments:
        calls = [{"type": "function", "function": {"name": "f", "arguments": value}}]
        turns = (Turn("user", "q"), Turn("assistant", "", {"tool_calls": calls}), Turn("user", "t"))
        conversations.append(Conversation((*turns, Turn("assistant", "r"))))
    for name in ("messages", "parquet"):
        write(tmp_path / name, *conversations, name=name)
        loaded = load(tmp_path / name)
        calls = [row["messages"][1]["tool_calls"][0] for row in loaded]
        assert [call["function"]["arguments"] for call in calls] == arguments


@pytest.mark.parametrize("name", FORMATS)
def test_the_front_matter_describes_the_files(name: str, tmp_path: Path) -> None:
    write(tmp_path, SINGLE, SECOND, name=name)
    front = front_matter(tmp_path)
    info = front["dataset_info"]
    outputs = digest_outputs(tmp_path)
    data = [file for path, file in outputs.items() if path.endswith((".jsonl", ".parquet"))]
    assert info["splits"][0]["num_examples"] == 2
    assert info["download_size"] == sum(file.bytes for file in data)
    assert front["size_categories"] == ["n<1K"]
    names = [feature["name"] for feature in info["features"]]
    assert {"id", "tags", "deita_id", "deita_evol_score", "deita_rank"} <= set(names)


def test_types_have_the_names_that_datasets_reads() -> None:
    datasets = pytest.importorskip("datasets")
    import pyarrow as pa

    inner = pa.struct([("x", pa.string()), ("y", pa.list_(pa.json_()))])
    types = {
        "a": pa.list_(inner),
        "b": pa.struct([("c", pa.list_(pa.list_(pa.int64())))]),
        "d": pa.json_(),
        "e": pa.float64(),
        "f": pa.bool_(),
    }
    features = datasets.Features._from_yaml_list(describe_features(types))
    assert features == datasets.Features(
        {
            "a": datasets.List(
                {"x": datasets.Value("string"), "y": datasets.List(datasets.Json())}
            ),
            "b": {"c": datasets.List(datasets.List(datasets.Value("int64")))},
            "d": datasets.Json(),
            "e": datasets.Value("float64"),
            "f": datasets.Value("bool"),
        }
    )


def test_the_languages_are_those_that_a_column_states(tmp_path: Path) -> None:
    write(tmp_path / "codes", with_extra(lang="fr"), with_extra(lang="EN"))
    write(tmp_path / "words", with_extra(language="French"))
    assert front_matter(tmp_path / "codes")["language"] == ["en", "fr"]
    assert "language" not in front_matter(tmp_path / "words")


def test_the_card_names_no_local_folder(tmp_path: Path) -> None:
    source = manifest(
        selected=1,
        parameters={
            "source": {"input": ["/home/me/data/pool.jsonl", "s3://bucket/a/b.jsonl"]},
            "export": {"output": "secret/place/out"},
            "scoring": {"complexity_model": "/home/me/models/scorer"},
            "advanced": {"store": "/home/me/.deita"},
        },
        fingerprints={
            "complexity": {"model": "/home/me/models/scorer"},
            "quality": None,
            "embedding": {"model": "org/name"},
            "selection": {},
        },
    )
    model = source.models[0].model_copy(update={"id": "/home/me/models/embedder"})
    file = source.inputs[0].model_copy(update={"uri": "/home/me/data/pool.jsonl"})
    source = source.model_copy(update={"models": [model], "inputs": [file]})
    export_folder(load_exporter("messages"), rows(SINGLE), tmp_path, source)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "/home" not in card and "secret" not in card
    for name in ("| pool.jsonl |", "s3://bucket/a/b.jsonl", "| embedder |", '"model": "org/name"'):
        assert name in card
    block = card.split("```json\n")[1].split("\n```")[0]
    assert json.loads(block)["complexity"] == {"model": "scorer"}


def test_the_card_counts_rows_with_images(tmp_path: Path) -> None:
    write(tmp_path, with_extra(images=["a.png"]), SINGLE)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "\n1 of the conversations refer to images, audio or video" in card


def test_the_card_says_what_turns_hold_and_which_columns_are_json_text(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    turns = (Turn("user", "q"), Turn("assistant", "", {"tool_calls": [call]}))
    write(tmp_path, Conversation(turns, extra={"n": 1}), with_extra(n="one"))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| tool\\_calls | the calls of tools, each with name and arguments |" in card
    assert "Columns with it: messages, n." in card
