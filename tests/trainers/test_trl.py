"""TRL trains on our folders: every tool call is in the tokens, and only answers are learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.support.checkpoints import byte_level_tokenizer, write_model
from tests.trainers.pools import AGENTS, write_subset

trl = pytest.importorskip("trl", reason="the extra train is not installed")

# Like Llama 3.1's, this template takes a turn with a key tool_calls, even a null one, for a call.
TEMPLATE = """\
{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}
{%- for message in messages %}[{{ message.role }}]
{%- if message.role == 'assistant' %}{% generation %}
{%- if 'tool_calls' in message %}{% for call in message.tool_calls %}
{{- '<call>' + (call.function | tojson) + '</call>' }}
{%- endfor %}{% endif %}
{{- message.content or '' }}<|end_of_text|>{% endgeneration %}
{%- else %}{{ message.content }}{% endif %}
{%- endfor %}"""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    tokens = {"eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(bos=False), **tokens)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, "Qwen2", vocabulary=len(tokenizer), max_position_embeddings=2048)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["messages", "input", "parquet", "hf_dataset"])
def test_sft_on_tool_calls(
    output_format: str, tokenizer: Any, model: Path, tmp_path: Path, offline: None
) -> None:
    folder = write_subset(AGENTS, tmp_path, output_format)
    train = run_the_lines_of_the_card(folder, tmp_path / "cache")
    args = trl.SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=3,
        max_length=2048,
        assistant_only_loss=True,
        report_to=[],
        use_cpu=True,
    )
    trainer = trl.SFTTrainer(str(model), args=args, train_dataset=train, processing_class=tokenizer)
    learned = []
    for row, source in zip(trainer.train_dataset, AGENTS, strict=True):
        text = tokenizer.decode(row["input_ids"])
        assert text.count("<call>") == count_calls(source)
        assert ("<tools>" in text) == ("tools" in source)
        assert "null" not in text and "None" not in text
        masked = zip(row["input_ids"], row["labels"], strict=True)
        learned.append(tokenizer.decode([token for token, label in masked if label != -100]))
    assert learned == [
        '<call>{"name": "weather", "arguments": {"city": "Paris"}}</call><|end_of_text|>'
        "It is 21 degrees warm in Paris.<|end_of_text|>",
        '<call>{"name": "add", "arguments": {"numbers": [2, 3]}}</call>'
        '<call>{"name": "add", "arguments": {"numbers": [4, 5]}}</call><|end_of_text|>'
        "They are 5 and 9.<|end_of_text|>",
        "An apple.<|end_of_text|>",
    ]
    assert trainer.train().training_loss > 0


def run_the_lines_of_the_card(folder: Path, cache: Path) -> Any:
    """What the card's lines load as `train`."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    block = card.split("### TRL")[1].split("```python\n")[1].split("```")[0]
    lines = block.split("\nargs = ")[0].replace("path/of/this/folder", str(folder))
    lines = lines.replace('split="train"', f'split="train", cache_dir="{cache}"')
    names: dict[str, Any] = {}
    exec(lines, names)
    return names["train"]


def count_calls(row: dict[str, Any]) -> int:
    return sum(len(turn.get("tool_calls", ())) for turn in row["messages"])
