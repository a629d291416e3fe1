"""Write the subsets and the tokenizer that the checks of `make trainers` read.

python -m tests.trainers.write FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tests.support.checkpoints import byte_level_tokenizer
from tests.trainers.pools import AGENTS, PLAIN, write_subset

SAMPLE = Path(__file__).parents[2] / "examples" / "pool.jsonl"
DOLLY = [{"instruction": "Add", "context": "2, 2", "response": "4"}]
SUBSETS = {
    "agents": (AGENTS, "messages", ("messages", "parquet", "sharegpt")),
    "plain": (PLAIN, "alpaca", ("messages", "parquet", "hf_dataset", "sharegpt", "alpaca")),
    "first": (PLAIN[:2], "alpaca", ("alpaca",)),
    "system": ([{**PLAIN[0], "system": "Be brief."}], "alpaca", ("alpaca",)),
    "dolly": (DOLLY, "alpaca", ("input",)),
    "sample": (None, "messages", ("messages", "parquet", "sharegpt", "input")),
}
TEMPLATE = """\
{%- if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}
{%- for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}
{%- if message.tool_calls %}{% for call in message.tool_calls %}
{{- '<call>' + (call.function | tojson) + '</call>' }}
{%- endfor %}{% endif %}<|end_of_text|>
{%- endfor %}"""


def main(folder: Path) -> None:
    """Write everything into `folder`."""
    for name, (rows, input_format, output_formats) in SUBSETS.items():
        for output_format in output_formats:
            pool = sample() if rows is None else rows
            write_subset(pool, folder / "subsets" / name, output_format, input_format)
    tokens = {"eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(bos=False), **tokens)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "tokenizer")


def sample() -> list[dict[str, Any]]:
    """The rows of the sample pool."""
    return [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
