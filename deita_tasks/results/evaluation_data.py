"""What measures the models of a comparison: held-out rows and preference pairs, as tokens.

<store>/evaluations/<digest>/held_out.parquet, chosen.parquet, rejected.parquet
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from deita_tasks import storage
from deita_tasks.config import Measures
from deita_tasks.errors import InputError
from deita_tasks.finetuning.examples import (
    SCHEMA,
    ChatRow,
    Example,
    LeftOut,
    build_training_set,
    encode_row,
    write_examples,
)
from deita_tasks.finetuning.preferences import EncodedPreference, Message, encode_preferences
from deita_tasks.models.chat import Encoded
from deita_tasks.results.arms import prompt_key
from deita_tasks.results.preference_files import read_preferences
from deita_tasks.results.training_data import find_training_data

HELD_OUT_FILE = "held_out.parquet"
CHOSEN_FILE = "chosen.parquet"
REJECTED_FILE = "rejected.parquet"


class Prompt(NamedTuple):
    """A held-out prompt that the models answer: all that comes before the first answer."""

    id: str
    messages: list[Message]

    @property
    def text(self) -> str:
        """What the user says, with a blank line between two turns."""
        return "\n\n".join(turn["content"] for turn in self.messages if turn["role"] == "user")


@dataclass(frozen=True)
class EvaluationData:
    """Held-out rows and pairs that fit the window.

    prompt_keys: of each item, by its id, to find it in the arms. left_out: rows by reason.
    """

    examples: list[Example]
    pairs: list[EncodedPreference]
    prompt_keys: dict[str, str]
    prompts: list[Prompt]
    left_out: dict[str, int]

    @property
    def digest(self) -> str:
        """A digest of all tokens and labels, in their order; ids do not change it."""
        rows = [[*example.encoded] for example in self.examples]
        pairs = []
        for pair in self.pairs:
            pairs.append([[*pair.chosen], [*pair.rejected]])
        return storage.digest_of([rows, pairs])

    def outside(self, ids: Collection[str], arms: Sequence[frozenset[str]]) -> list[str]:
        """Return those of `ids` whose prompts are in no arm, in their order.

        arms: the prompts of each, as `prompt_key` returns them.
        """
        taken = frozenset().union(*arms)
        return [item for item in ids if self.prompt_keys[item] not in taken]

    def write(self, store: str) -> str:
        """Put the tokens into the store; return the folder, <store>/evaluations/<digest>."""
        uri = storage.join(store, "evaluations", self.digest)
        chosen = [Example(pair.id, pair.chosen) for pair in self.pairs]
        rejected = [Example(pair.id, pair.rejected) for pair in self.pairs]
        write_examples(storage.join(uri, HELD_OUT_FILE), self.examples)
        write_examples(storage.join(uri, CHOSEN_FILE), chosen)
        write_examples(storage.join(uri, REJECTED_FILE), rejected)
        return uri


def read_evaluation(uri: str) -> tuple[list[Example], list[EncodedPreference]]:
    """Return the held-out rows and the pairs that `EvaluationData.write` left, in their order.

    Raises MissingFile or DamagedArtifact.
    """
    chosen = _read_examples(storage.join(uri, CHOSEN_FILE))
    rejected = _read_examples(storage.join(uri, REJECTED_FILE))
    pairs = [
        EncodedPreference(first.id, first.encoded, second.encoded)
        for first, second in zip(chosen, rejected, strict=True)
    ]
    return _read_examples(storage.join(uri, HELD_OUT_FILE)), pairs


def _read_examples(uri: str) -> list[Example]:
    """Return the examples of a table, in its order. Raises DamagedArtifact for another schema."""
    rows = storage.read_table(uri, schema=SCHEMA).to_pylist()
    examples = []
    for row in rows:
        encoded = Encoded(row["input_ids"], row["labels"])
        examples.append(Example(row["id"], encoded))
    return examples


def load_evaluation(measures: Measures, tokenizer: Any, max_length: int) -> EvaluationData:
    """Read what the parameters name. Raises InputError if nothing of it fits the window."""
    keys: dict[str, str] = {}
    examples: list[Example] = []
    pairs: list[EncodedPreference] = []
    prompts: list[Prompt] = []
    left_out: list[LeftOut] = []
    if measures.held_out:
        rows = {row.id: row for row in _chat_rows(measures.held_out, left_out)}
        encoded = [encode_row(row, tokenizer) for row in rows.values()]
        data = build_training_set(encoded, max_length)
        examples = data.examples
        left_out += data.left_out
        prompts = [_prompt(rows[example.id]) for example in examples]
        keys |= {prompt.id: prompt_key(_first_words(prompt.messages)) for prompt in prompts}
    if measures.pairs:
        preferences, unread = read_preferences(measures.pairs)
        pairs, too_long = encode_preferences(preferences, tokenizer, max_length)
        left_out += [*unread, *too_long]
        if not pairs:
            raise InputError(
                f"{', '.join(measures.pairs)}: no pair fits the window of {max_length:,} tokens"
            )
        keys |= {pair.id: prompt_key(_first_words(pair.prompt)) for pair in preferences}
    reasons = Counter(row.reason for row in left_out)
    return EvaluationData(examples, pairs, keys, prompts, dict(reasons.most_common()))


def _chat_rows(uris: Sequence[str], left_out: list[LeftOut]) -> Iterator[ChatRow]:
    """Yield the rows that can be shown to a model; adds the others to `left_out`."""
    for row in find_training_data(uris).rows():
        if isinstance(row, LeftOut):
            left_out.append(row)
        else:
            yield row


def _prompt(row: ChatRow) -> Prompt:
    """Return the turns before the first answer, system turns too; all turns if there is none."""
    messages = []
    for turn in row.messages:
        if turn["role"] == "assistant":
            break
        role = str(turn["role"])
        messages.append({"role": role, "content": str(turn["content"])})
    return Prompt(row.id, messages)


def _first_words(messages: Sequence[Message]) -> str:
    """Return what the user says first."""
    return next((turn["content"] for turn in messages if turn["role"] == "user"), "")
