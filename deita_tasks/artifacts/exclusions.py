"""The exclusions artifact: the rows of a pool that a filter leaves out, each with its reason.

<store>/exclusions/<digest>/
    excluded.parquet      a row for every excluded conversation (EXCLUSIONS)
    tokens.parquet        of a training window: the tokens of every distinct row (TOKENS)
    exclusions.json       counts; written last, so no artifact is half there

The digest is that of the pool, the evaluation files or the tokenizer, and the settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeInt

from deita_tasks import progress, storage
from deita_tasks.artifacts import references
from deita_tasks.artifacts.candidates import StagesParts, open_vectors
from deita_tasks.artifacts.parts import StageParts
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.scores import ComputedValues
from deita_tasks.artifacts.token_budget import TokenBudget
from deita_tasks.errors import StorageError
from deita_tasks.filtering.decontamination import EvaluationTexts, Overlap
from deita_tasks.filtering.training_window import are_beyond, describe_beyond, describe_uncut
from deita_tasks.lengths import LengthQuantile, length_quantiles
from deita_tasks.manifest import TokenUse
from deita_tasks.models.token_counter import RowTokens
from deita_tasks.selecting.similarity.cosine import nearest_above
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord

EXCLUSIONS_FILE = "exclusions.json"
EXCLUDED_FILE = "excluded.parquet"
TOKENS_FILE = "tokens.parquet"
BLOCK_ROWS = 1024  # conversations compared with the evaluation texts at a time

EXCLUSIONS = pa.schema(
    {
        "id": pa.string(),
        "decision": pa.string(),  # contaminated, too_long, or unscorable
        "reason": pa.string(),
        # contaminated: see filtering.decontamination.Overlap
        "kind": pa.string(),
        "turn": pa.int32(),
        "share": pa.float64(),
        "longest_run": pa.int32(),
        "similarity": pa.float32(),  # if the embeddings are compared
        "evaluation_uri": pa.string(),
        "evaluation_row": pa.int64(),
        "evaluation_turn": pa.int32(),
        "evaluation_text": pa.string(),
        # too_long: see models.token_counter.RowTokens
        "tokens": pa.int32(),
        "before_answer": pa.int32(),
    }
)
TOKENS = pa.schema(
    {
        "id": pa.string(),
        "tokens": pa.int32(),  # of the whole row; null for a row that the template cannot show
        "window_tokens": pa.int32(),  # of them, those within the training window
    }
)


class ExclusionsSummary(JsonRecord):
    """exclusions.json. counts: excluded rows by decision.

    notes: what to know, in words, such as evaluation rows that could not be read. Of tokens: the
    digest of the fingerprint of what counted them, the window of the training, and the lengths of
    all rows.
    """

    uri: str
    pool: str
    counts: dict[str, NonNegativeInt]
    files: dict[str, FileInfo]
    notes: list[str] = Field(default_factory=list)
    fingerprint: str | None = None
    window: int | None = None
    lengths: list[LengthQuantile] = Field(default_factory=list)

    def read(self, name: str, schema: pa.Schema) -> pa.Table:
        """Return one of the artifact's tables. Raises MissingFile or DamagedArtifact."""
        place = storage.checked_file(self.uri, name, self.files[name])
        return storage.read_table(place, schema=schema)


@dataclass(frozen=True)
class Exclusions:
    """What all filters of a run left out: EXCLUSIONS, each id once.

    tokens: TOKENS, with their lengths, and the digest of the fingerprint of what counted them; None
    if nothing has. window: of the training. notes: of the filters.
    """

    table: pa.Table
    tokens: pa.Table | None = None
    fingerprint: str | None = None
    window: int | None = None
    lengths: Sequence[LengthQuantile] = ()
    notes: Sequence[str] = ()

    @property
    def ids(self) -> pa.Array:
        """The excluded ids."""
        return self.table["id"].combine_chunks()

    def budget(self, tokens: int | None) -> TokenBudget | None:
        """Return a budget of so many tokens; None for None.

        Raises StorageError if nothing has counted the tokens.
        """
        if tokens is None:
            return None
        if self.tokens is None:
            raise StorageError(f"budget_tokens = {tokens:,}: no tokens are counted; set tokenizer")
        return TokenBudget(tokens, self.tokens)

    def token_use(self, kept: Sequence[str], budget: int | None, cuts: pa.Table) -> TokenUse | None:
        """Return the tokens of a selection; None if nothing has counted them.

        cuts: CUTS of the pool.
        """
        if self.tokens is None:
            return None
        selected = TokenBudget(0, self.tokens).tokens_of(kept).sum()
        return TokenUse(
            selected=int(selected),
            budget=budget,
            window=self.window,
            lengths=list(self.lengths),
            cut_rows=len(cuts),
            cut_turns=pc.sum(cuts["cut_turns"]).as_py() or 0,
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """The digest of the fingerprint of what counted the tokens, by stage; {} if nothing has."""
        return {} if self.fingerprint is None else {"tokens": self.fingerprint}

    def leave_out(self, pool: Pool) -> Pool:
        """Return the pool without the excluded rows among its distinct ones; its files stay."""
        return pool.without(self.ids) if self.table.num_rows else pool


def read_summary(uri: str) -> ExclusionsSummary:
    """Return the exclusions.json under `uri`. Raises MissingFile or DamagedArtifact."""
    summary = storage.read_record(storage.join(uri, EXCLUSIONS_FILE), ExclusionsSummary)
    return summary.model_copy(update={"uri": uri})


def are_exclusions(uri: str) -> bool:
    """Return whether complete, undamaged exclusions lie under `uri`.

    False too where the store cannot be read: then the caller writes them, and sees why not.
    """
    try:
        return storage.are_same(uri, read_summary(uri).files)
    except StorageError:
        return False


def read_exclusions(uris: Sequence[str]) -> Exclusions:
    """Return what all these artifacts leave out; the first that excludes a row says why.

    Tokens are those of the last one that has counted them. Raises MissingFile or DamagedArtifact.
    """
    exclusions = Exclusions(EXCLUSIONS.empty_table())
    for uri in uris:
        summary = read_summary(uri)
        table = summary.read(EXCLUDED_FILE, EXCLUSIONS)
        is_new = pc.invert(pc.is_in(table["id"], value_set=exclusions.ids))
        exclusions = replace(
            exclusions,
            table=pa.concat_tables([exclusions.table, table.filter(is_new)]),
            notes=[*exclusions.notes, *summary.notes],
        )
        if TOKENS_FILE in summary.files:
            exclusions = replace(
                exclusions,
                tokens=summary.read(TOKENS_FILE, TOKENS),
                fingerprint=summary.fingerprint,
                window=summary.window,
                lengths=summary.lengths,
            )
    return exclusions


def write_contaminated(
    uri: str, pool: Pool, evaluation: EvaluationTexts, notes: Sequence[str] = ()
) -> ExclusionsSummary:
    """Find the rows of `pool` that repeat an evaluation text; write the artifact under `uri`.

    notes: what the reader should know of the evaluation files. Rows are in pool order.
    """
    rows = []
    for ids, conversations in _blocks(pool):
        for row_id, overlap in zip(ids, evaluation.find_overlaps(conversations), strict=True):
            if overlap is not None:
                rows.append(_contaminated_row(row_id, overlap, evaluation.rule.words))
        progress.tick(len(ids))
    table = pa.Table.from_pylist(rows, EXCLUSIONS)
    return _write(uri, pool, {EXCLUDED_FILE: table}, notes=list(notes))


def _contaminated_row(row_id: str, overlap: Overlap, words: int) -> dict[str, Any]:
    """Return a row of EXCLUSIONS by column; those left out become null.

    words: of an n-gram, for the reason.
    """
    evaluation = overlap.evaluation
    return {
        "id": row_id,
        "decision": "contaminated",
        "reason": describe_overlap(overlap, words),
        "kind": overlap.kind,
        "turn": overlap.turn,
        "share": overlap.share,
        "longest_run": overlap.longest_run,
        "evaluation_uri": evaluation.uri,
        "evaluation_row": evaluation.row,
        "evaluation_turn": evaluation.turn,
        "evaluation_text": evaluation.text,
    }


def write_similar(
    uri: str,
    pool: Pool,
    stage_parts: StagesParts,
    reference: str,
    limit: float,
    device: str = "auto",
) -> ExclusionsSummary:
    """Find the rows of `pool` that are more similar than `limit` to an evaluation row.

    stage_parts: the embeddings of every distinct row. reference: where the vectors of the
    evaluation rows are. A row without a vector is left to the selection. Writes the artifact.
    Raises UsageError for vectors of another width.
    """
    texts = references.read_table(reference)
    ids, _ = pool.distinct
    rows = []
    with open_vectors(pool, ids, stage_parts) as vectors:
        assert vectors is not None  # there are embeddings
        near = nearest_above(vectors, references.vectors_of(texts), limit, device)
    for row, text, similarity in near:
        rows.append(_similar_row(ids[row].as_py(), texts.slice(text, 1).to_pylist()[0], similarity))
    notes = references.read_summary(reference).notes
    return _write(uri, pool, {EXCLUDED_FILE: pa.Table.from_pylist(rows, EXCLUSIONS)}, notes=notes)


def _similar_row(row_id: str, text: dict[str, Any], similarity: float) -> dict[str, Any]:
    """Return a row of EXCLUSIONS by column; those left out become null.

    text: a row of the reference's table. similarity: the cosine of the two embeddings.
    """
    place = f"{text['source_uri']}:{text['source_row']}"
    return {
        "id": row_id,
        "decision": "contaminated",
        "reason": f"its embedding has a similarity of {similarity:.3f} to that of {place}",
        "kind": "similar",
        "similarity": similarity,
        "evaluation_uri": text["source_uri"],
        "evaluation_row": text["source_row"],
        "evaluation_text": text["text"],
    }


def describe_overlap(overlap: Overlap, words: int) -> str:
    """Return what a row repeats, in words. words: of an n-gram."""
    place = f"turn {overlap.evaluation.turn} of {overlap.evaluation.place}"
    if overlap.kind == "exact":
        return f"its turn {overlap.turn} is {place}, word for word"
    return (
        f"it has {overlap.share:.0%} of the {words}-grams of {place}, most of them in its turn "
        f"{overlap.turn}; {overlap.longest_run:,} words in a row"
    )


def _blocks(pool: Pool) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield the distinct rows of `pool`, some at a time: ids, and the texts of their turns."""
    _, positions = pool.distinct
    start = 0
    for table in pool.scan(["id", "turns"]):
        end = start + table.num_rows
        is_here = (positions >= start) & (positions < end)
        here = positions[is_here] - start
        start = end
        for first in range(0, len(here), BLOCK_ROWS):
            some = pa.array(here[first : first + BLOCK_ROWS])
            block = table.take(some).combine_chunks()
            turns = block["turns"].combine_chunks()
            texts = pc.struct_field(turns.flatten(), "content").to_pylist()
            lengths = pc.list_value_length(turns).to_numpy()
            ends = np.concatenate([[0], np.cumsum(lengths)])
            rows = [texts[begin:end] for begin, end in pairwise(ends)]
            yield block["id"].to_pylist(), rows


def write_window(
    uri: str, pool: Pool, parts: StageParts, window: int | None, are_cut: bool = False
) -> ExclusionsSummary:
    """Find the rows of `pool` that a window of so many tokens would teach nothing.

    parts: the token counts of every distinct row. are_cut: rows were cut at a turn to fit, so those
    that do not fit are too long. Writes the artifact. A row that the chat template cannot show is
    unscorable. Raises StorageError for a row that is in no part.
    """
    ids, _ = pool.distinct
    values = ComputedValues.read("tokens", pool, parts)
    if not values.is_computed.all():
        raise StorageError(f"{parts.part_set.uri}: some rows are in no part; run again")
    counts = values.take(np.arange(len(ids)))
    problems = counts["problem"].to_pylist()
    is_counted = counts["values"].is_valid().to_numpy()
    numbers = np.full((len(ids), 2), -1, np.int64)
    flat = pc.list_flatten(counts["values"]).to_numpy()
    numbers[is_counted] = flat.reshape(-1, 2).astype(np.int64)
    tokens, before_answer = numbers.T
    in_window = tokens if window is None else np.minimum(tokens, window)
    is_beyond = are_beyond(before_answer, window)
    if are_cut and window is not None:
        is_beyond = tokens > window
    names = ids.to_pylist()
    rows: list[dict[str, Any]] = []
    for row in np.flatnonzero(~is_counted):
        reason = f"tokens: {problems[row]}"
        rows.append({"id": names[row], "decision": "unscorable", "reason": reason})
    for row in np.flatnonzero(is_counted & is_beyond):
        figures = RowTokens(int(tokens[row]), int(before_answer[row]))
        rows.append(_too_long_row(names[row], figures, window, are_cut))
    excluded = pa.Table.from_pylist(rows, EXCLUSIONS)
    columns = {
        "id": ids,
        "tokens": pa.array(tokens, mask=~is_counted),
        "window_tokens": pa.array(in_window, mask=~is_counted),
    }
    table = pa.table(columns).cast(TOKENS)
    files = {EXCLUDED_FILE: excluded, TOKENS_FILE: table}
    lengths = length_quantiles(tokens[is_counted])
    fingerprint = parts.part_set.fingerprint
    return _write(uri, pool, files, fingerprint=fingerprint, window=window, lengths=lengths)


def _too_long_row(
    row_id: str, figures: RowTokens, window: int | None, are_cut: bool
) -> dict[str, Any]:
    """Return the row of EXCLUSIONS for a row that does not fit the window."""
    reason = describe_beyond(figures.tokens, figures.before_answer, window)
    if are_cut and window is not None:
        reason = describe_uncut(figures.tokens, window)
    return {
        "id": row_id,
        "decision": "too_long",
        "reason": reason,
        "tokens": figures.tokens,
        "before_answer": figures.before_answer,
    }


def _write(uri: str, pool: Pool, tables: Mapping[str, pa.Table], **facts: Any) -> ExclusionsSummary:
    """Write the tables of an artifact, and its summary with these facts."""
    files = {}
    for name, table in tables.items():
        place = storage.join(uri, name)
        storage.write_table(place, table)
        files[name] = storage.describe(place)
    counts = Counter(tables[EXCLUDED_FILE]["decision"].to_pylist())
    summary = ExclusionsSummary(
        uri=uri, pool=pool.digest, counts=dict(counts), files=files, **facts
    )
    storage.write_record(storage.join(uri, EXCLUSIONS_FILE), summary)
    return summary
