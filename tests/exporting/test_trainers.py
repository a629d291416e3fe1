"""The files for trainers: right for the very rows beside them, or absent with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deita_tasks.exporting.trainers import DATASET_NAME
from tests.trainers.pools import AGENTS, PLAIN, write_subset

SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}

CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def entry(folder: Path) -> dict[str, Any]:
    """The entry of dataset_info.json."""
    entries: dict[str, Any] = json.loads((folder / "dataset_info.json").read_text())
    assert list(entries) == [DATASET_NAME]
    assert (folder / entries[DATASET_NAME]["file_name"]).exists()
    return dict(entries[DATASET_NAME])


def dataset(folder: Path) -> dict[str, Any]:
    """The data set of axolotl.yaml."""
    (first,) = yaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"]
    return dict(first)


def section(folder: Path, trainer: str) -> str:
    card = (folder / "README.md").read_text(encoding="utf-8").replace("\\", "")
    return card.split(f"### {trainer}\n")[1].split("\n#")[0]


def test_tool_calls_in_sharegpt(tmp_path: Path) -> None:
    folder = write_subset(AGENTS, tmp_path, "sharegpt")
    assert entry(folder) == {
        "file_name": "selected.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "tools"},
        "tags": SHAREGPT_TAGS,
    }
    assert "It skips 2 of the 3 rows" in section(folder, "LLaMA-Factory")
    assert not (folder / "axolotl.yaml").exists()
    assert "choose --output-format messages" in section(folder, "axolotl")
    assert "choose --output-format messages" in section(folder, "TRL")


@pytest.mark.parametrize("output_format", ["messages", "parquet", "hf_dataset", "input"])
def test_tool_calls_in_messages(output_format: str, tmp_path: Path) -> None:
    folder = write_subset(AGENTS, tmp_path, output_format)
    assert dataset(folder) == {
        "path": "path/of/this/folder",
        "split": "train",
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles_to_train": ["assistant"],
        "field_tools": "tools",
    }
    assert not (folder / "dataset_info.json").exists()
    assert "choose --output-format sharegpt" in section(folder, "LLaMA-Factory")
    assert "assistant_only_loss=True" in section(folder, "TRL")


@pytest.mark.parametrize("output_format", ["alpaca", "input"])
def test_alpaca(output_format: str, tmp_path: Path) -> None:
    folder = write_subset(PLAIN, tmp_path, output_format, "alpaca")
    assert entry(folder) == {
        "file_name": "selected.jsonl",
        "formatting": "alpaca",
        "columns": {
            "prompt": "instruction",
            "response": "output",
            "query": "input",
            "history": "history",
            "system": "system",
        },
    }
    assert "history" in section(folder, "axolotl")
    assert not (folder / "axolotl.yaml").exists()


def test_alpaca_without_history(tmp_path: Path) -> None:
    assert dataset(write_subset(PLAIN[:2], tmp_path, "alpaca", "alpaca"))["type"] == "alpaca"


def test_columns_under_other_names(tmp_path: Path) -> None:
    pool = [{"instruction": "Add", "context": "2, 2", "response": "4"}]
    folder = write_subset(pool, tmp_path, "input", "alpaca")
    columns = {"prompt": "instruction", "response": "response", "query": "context"}
    assert entry(folder)["columns"] == columns
    kind = dataset(folder)["type"]
    assert (kind["field_instruction"], kind["field_input"]) == ("instruction", "context")
    assert kind["field_output"] == "response"


def test_question_and_answer(tmp_path: Path) -> None:
    pool = [{"question": "Why?", "answer": "Because.", "score": 1}]
    folder = write_subset(pool, tmp_path, "input", "prompt_response")
    assert entry(folder)["columns"] == {"prompt": "question", "response": "answer"}
    lines = section(folder, "TRL")
    assert 'select_columns(["question", "answer"])' in lines
    assert 'rename_column("answer", "completion")' in lines


def test_role_names_of_the_pool(tmp_path: Path) -> None:
    def row(user: str, assistant: str) -> dict[str, Any]:
        turns = [{"from": user, "value": "q"}, {"from": assistant, "value": "r"}]
        return {"conversations": turns, "system": "Be brief."}

    pool = [row("user", "bot"), row("user", "bot"), row("human", "bot")]
    pool[1]["conversations"][0]["value"] = "another"
    folder = write_subset(pool, tmp_path, "input", "sharegpt")
    tags = entry(folder)["tags"]
    assert (tags["user_tag"], tags["assistant_tag"]) == ("user", "bot")
    assert entry(folder)["columns"]["system"] == "system"
    assert "It skips 1 of the 3 rows" in section(folder, "LLaMA-Factory")
    assert dataset(folder)["roles"] == {"assistant": ["bot"], "user": ["human", "user"]}
    assert dataset(folder)["field_system"] == "system"


CALL = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": "21 C"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*CHAT], "tools": ['{"name": "f"}']},
        {
            "messages": [
                CHAT[0],
                {"role": "assistant", "content": [CALL]},
                {"role": "user", "content": [RESULT, {"type": "text", "text": "Warm?"}]},
                CHAT[1],
            ]
        },
    ],
)
def test_a_layout_that_no_trainer_reads_has_no_files(row: dict[str, Any], tmp_path: Path) -> None:
    folder = write_subset([row], tmp_path / "as input", "input")
    assert not (folder / "dataset_info.json").exists() and not (folder / "axolotl.yaml").exists()
    assert "choose --output-format messages" in section(folder, "TRL")
    in_messages = write_subset([row], tmp_path / "in messages", "messages")
    assert dataset(in_messages)["field_messages"] == "messages"
    lines = (in_messages / "selected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]).get("tools", [{"name": "f"}]) == [{"name": "f"}]


def test_several_layouts_have_no_files(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    folder = write_subset([chat, {"messages": turns}], tmp_path, "input", "messages")
    assert {path.name for path in folder.iterdir()} == {"selected.jsonl", "README.md"}
    for trainer in ("TRL", "LLaMA-Factory", "axolotl"):
        assert "the rows have several layouts" in section(folder, trainer)


def test_a_column_of_several_types_stops_llama_factory(tmp_path: Path) -> None:
    pool = [{**row, "label": label} for row, label in zip(PLAIN, (1, "two", None), strict=True)]
    folder = write_subset(pool, tmp_path, "sharegpt", "alpaca")
    assert not (folder / "dataset_info.json").exists()
    assert "several types (label)" in section(folder, "LLaMA-Factory")


def test_images_are_a_column_of_llama_factory(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "A cat."}]
    pool = [{"conversations": turns, "images": ["cat.png"]}]
    folder = write_subset(pool, tmp_path, "sharegpt", "sharegpt")
    assert entry(folder)["columns"] == {"messages": "conversations", "images": "images"}
