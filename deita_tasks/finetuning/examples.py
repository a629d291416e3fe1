"""Conversations as tokens, with loss on what the assistant says and on nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
from pydantic import NonNegativeInt

from deita_tasks import storage
from deita_tasks.conversations import SourceRow
from deita_tasks.errors import InputError
from deita_tasks.lengths import LengthQuantile, length_quantiles
from deita_tasks.models.chat import CannotRender, Encoded, encode
from deita_tasks.strict_json import JSON, JsonRecord

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = pa.schema(
    {"id": pa.string(), "input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())}
)


class Example(NamedTuple):
    """A row to train on. id: of its conversation. encoded: what the window holds of it."""

    id: str
    encoded: Encoded


class ChatRow(NamedTuple):
    """A conversation as chat templates read it: messages of role and content, and tools."""

    id: str
    source: SourceRow
    messages: Sequence[Mapping[str, JSON]]
    tools: JSON = None


class LeftOut(NamedTuple):
    """A row that is not trained on, and why."""

    source: SourceRow
    id: str
    reason: str


class EncodedRow(NamedTuple):
    """A whole row as tokens, before the window."""

    id: str
    source: SourceRow
    whole: Encoded

    def beyond(self, max_length: int) -> LeftOut:
        """Return the row as left out by the window."""
        reason = f"its answers begin beyond the window of {max_length:,} tokens"
        return LeftOut(self.source, self.id, reason)


class Survey(JsonRecord):
    """What the window leaves of a training set, counted before training.

    rows: that are trained on. tokens: that the model reads of them. trained_tokens: those under
    loss. cut_rows: rows longer than the window; cut_tokens, cut_trained_tokens: what it leaves out
    of them. left_out: rows that are not trained on, by reason. lengths: tokens of whole rows by
    quantile, before the window.
    """

    rows: NonNegativeInt
    tokens: NonNegativeInt
    trained_tokens: NonNegativeInt
    cut_rows: NonNegativeInt
    cut_tokens: NonNegativeInt
    cut_trained_tokens: NonNegativeInt
    left_out: dict[str, NonNegativeInt]
    lengths: list[LengthQuantile]

    def sentences(self) -> list[str]:
        """Return what to know before training, a line each."""
        quantiles = ", ".join(map(str, self.lengths))
        lines = [
            f"{self.rows:,} rows, {self.tokens:,} tokens, {self.trained_tokens:,} of them under "
            f"loss; tokens a row by quantile: {quantiles}"
        ]
        if self.cut_rows:
            lines.append(
                f"the window cuts {self.cut_rows:,} rows: {self.cut_tokens:,} tokens, "
                f"{self.cut_trained_tokens:,} of them of answers"
            )
        for reason, count in Counter(self.left_out).most_common():
            lines.append(f"{count:,} rows are left out: {reason}")
        return lines


class TrainingSet(NamedTuple):
    """The examples by id, the rows left out, and both counted."""

    examples: list[Example]
    left_out: list[LeftOut]
    survey: Survey


def encode_row(row: ChatRow | LeftOut, tokenizer: PreTrainedTokenizerBase) -> EncodedRow | LeftOut:
    """Return a row as tokens, or why it has none.

    Raises nothing for a row that the chat template cannot show: it is left out, with the reason.
    """
    if isinstance(row, LeftOut):
        return row
    try:
        return EncodedRow(row.id, row.source, encode(tokenizer, row.messages, row.tools))
    except CannotRender as error:
        return LeftOut(row.source, row.id, str(error))


def build_training_set(rows: Iterable[EncodedRow | LeftOut], max_length: int) -> TrainingSet:
    """Return what to train on, by id, so that it does not depend on the order of the rows.

    A row whose answers lie wholly beyond `max_length` tokens would teach nothing: it is left out.
    Raises InputError if no row is left.
    """
    examples: list[Example] = []
    left_out: list[LeftOut] = []
    lengths: list[int] = []
    cut: list[Encoded] = []
    for row in rows:
        if isinstance(row, LeftOut):
            left_out.append(row)
            continue
        lengths.append(len(row.whole.input_ids))
        window = row.whole.cut(max_length)
        if not window.trained:
            left_out.append(row.beyond(max_length))
            continue
        examples.append(Example(row.id, window))
        if lengths[-1] > max_length:
            cut.append(row.whole)
    examples.sort(key=lambda example: example.id)
    survey = Survey(
        rows=len(examples),
        tokens=sum(len(example.encoded.input_ids) for example in examples),
        trained_tokens=sum(example.encoded.trained for example in examples),
        cut_rows=len(cut),
        cut_tokens=sum(len(row.input_ids) - max_length for row in cut),
        cut_trained_tokens=sum(row.trained - row.cut(max_length).trained for row in cut),
        left_out=dict(Counter(row.reason for row in left_out).most_common()),
        lengths=length_quantiles(lengths),
    )
    if not examples:
        raise InputError(f"no row can be trained on: {'; '.join(survey.sentences()[1:])}")
    return TrainingSet(examples, left_out, survey)


def write_examples(path: str, examples: Sequence[Example]) -> None:
    """Write what the trainer reads, as one Parquet file."""
    columns = {
        "id": [example.id for example in examples],
        "input_ids": [example.encoded.input_ids for example in examples],
        "labels": [example.encoded.labels for example in examples],
    }
    storage.write_table(path, pa.table(columns, schema=SCHEMA))


def data_digest(examples: Sequence[Example]) -> str:
    """Return a digest of the tokens and labels of a training set.

    Ids and sources do not count: equal tokens in equal order train equal models.
    """
    return storage.digest_of([[*example.encoded] for example in examples])
