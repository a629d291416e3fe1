"""The arms of a comparison: the selection, and other choices of as many rows from its pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks import storage
from deita_tasks.artifacts.pool import POOL_FILE, Pool, pool_uri
from deita_tasks.config import Comparison
from deita_tasks.conversations import Conversation
from deita_tasks.decisions import NO_PLACE
from deita_tasks.errors import StorageError, UsageError
from deita_tasks.finetuning.examples import (
    EncodedRow,
    LeftOut,
    TrainingSet,
    build_training_set,
    encode_row,
)
from deita_tasks.measuring.measures import SELECTION
from deita_tasks.reporting.comparison import ArmFacts
from deita_tasks.reporting.statistics import distinct_rows
from deita_tasks.results.reading import read_earlier_manifest, read_ledger
from deita_tasks.results.training_data import chat_row
from deita_tasks.results.versions import result_uri
from deita_tasks.words import count_words

CHUNK = 512  # rows read and encoded at a time


class Arm(NamedTuple):
    """Rows to train on. group: arms of one group differ by chance alone. prompts: of its rows."""

    name: str
    group: str
    data: TrainingSet
    prompts: frozenset[str]

    def facts(self) -> ArmFacts:
        """Return what a comparison says of it. left_out: rows that cannot be trained on."""
        survey = self.data.survey
        return ArmFacts(
            name=self.name,
            group=self.group,
            rows=survey.rows,
            tokens=survey.tokens,
            trained_tokens=survey.trained_tokens,
            cut_rows=survey.cut_rows,
            left_out=sum(survey.left_out.values()),
        )


class Budget(NamedTuple):
    """What every arm has as much of as the selection: rows, or tokens in the window."""

    by: str
    amount: int


@dataclass
class SelectionResult:
    """A selection with its ledger and its pool, whose rows are encoded as they are asked for."""

    uri: str
    pool: Pool
    ledger: pa.Table
    tokenizer: Any
    max_length: int
    _rows: dict[str, EncodedRow | LeftOut] = field(default_factory=dict)
    _prompts: dict[str, str] = field(default_factory=dict)

    @property
    def candidates(self) -> pa.Table:
        """The ledger's lines of distinct rows that could be read."""
        return distinct_rows(self.ledger)

    def ids(self) -> list[str]:
        """Return the ids of all candidates, in the order of the ledger."""
        ids: list[str] = self.candidates["id"].to_pylist()
        return ids

    def encoded(self, ids: Sequence[str]) -> Iterator[EncodedRow | LeftOut]:
        """Yield the rows of the pool with these ids as tokens, in the same order.

        A row that cannot be encoded is a LeftOut. Rows are kept, because arms share many of them.
        """
        for chunk in _chunks(ids):
            missing = [row_id for row_id in chunk if row_id not in self._rows]
            for row_id, conversation in self.pool.find(missing).items() if missing else ():
                self._rows[row_id] = encode_row(chat_row(conversation), self.tokenizer)
                self._prompts[row_id] = prompt_key(first_prompt(conversation))
            yield from (self._rows[row_id] for row_id in chunk)

    def prompts(self, data: TrainingSet) -> frozenset[str]:
        """Return the first prompts of a training set, as `prompt_key` compares them.

        They are kept out of what measures its model. Only for rows that `encoded` has yielded.
        """
        return frozenset(self._prompts[example.id] for example in data.examples)


def open_selection(uri: str, store: str, tokenizer: Any, max_length: int) -> SelectionResult:
    """Open the output of `select`, or the latest version of `reselect`.

    Raises UsageError if it is neither, or its pool is no longer in the store.
    """
    uri = result_uri(uri)
    try:
        manifest = read_earlier_manifest(uri)
    except StorageError as error:
        raise UsageError(
            f"{uri}: no result of `deita select` or `deita reselect` here ({error})"
        ) from error
    return SelectionResult(
        uri=uri,
        pool=_open_pool(manifest.pool, store),
        ledger=read_ledger(uri, manifest.outputs),
        tokenizer=tokenizer,
        max_length=max_length,
    )


def _open_pool(uri: str, store: str) -> Pool:
    """Open the pool in the store of this run, else where the selection's run had it."""
    here = pool_uri(store, uri.rsplit("/", 1)[-1])
    for place in (here, uri):
        if storage.exists(storage.join(place, POOL_FILE)):
            return Pool.open(place)
    raise UsageError(
        f"{here}: the selection's pool is not in the store; set --store to that of `deita select`, "
        "or select again"
    )


def build_arms(selection: SelectionResult, comparison: Comparison) -> tuple[list[Arm], list[str]]:
    """Return the arms, the selection first, and a line for each that could not be made."""
    selected = selection.ledger.filter(pc.equal(selection.ledger["decision"], "selected"))
    data = build_training_set(
        selection.encoded(sorted(selected["id"].to_pylist())), selection.max_length
    )
    arms = [Arm(SELECTION, SELECTION, data, selection.prompts(data))]
    survey = data.survey
    amount = survey.rows if comparison.budget_by == "rows" else survey.tokens
    budget = Budget(comparison.budget_by, amount)
    notes: list[str] = []
    for group in comparison.arms:
        names: list[str] = [group]
        if group == "random":
            names = [f"random {number}" for number in range(1, comparison.draws + 1)]
        for name in names:
            try:
                data = _fill(selection, _ranking(selection, group, name), budget, group)
            except _NotCertain as error:
                notes.append(str(error))
                continue
            arms.append(Arm(name, group, data, selection.prompts(data)))
    return arms, notes


class _Ranking(NamedTuple):
    """Ids in the order in which an arm takes them. is_complete: whether no row is missing."""

    ids: list[str]
    is_complete: bool = True


class _NotCertain(Exception):
    """An arm that the ledger cannot tell for certain. `str` says why and what to do."""


def _ranking(selection: SelectionResult, group: str, name: str) -> _Ranking:
    """Return the order in which an arm takes rows. `name` tells the random draws apart.

    Only that of `top_score` may be incomplete.
    """
    if group == "longest":
        return _by_answer_length(selection)
    if group == "top_score":
        return _by_score(selection)
    ids = selection.ids()
    # By a hash, as the strategy `random`: the order of the pool does not matter.
    return _Ranking(sorted(ids, key=lambda row_id: storage.digest_of([name, row_id])))


def _by_answer_length(selection: SelectionResult) -> _Ranking:
    """Return all candidates, those with the most words in their answers first, ties by id."""
    words: dict[str, int] = {}
    for chunk in _chunks(selection.ids()):
        for row_id, conversation in selection.pool.find(chunk).items():
            answers = (turn.content for turn in conversation.turns if turn.role == "assistant")
            words[row_id] = sum(map(count_words, answers))
    return _Ranking(sorted(words, key=lambda row_id: (-words[row_id], row_id)))


def _by_score(selection: SelectionResult) -> _Ranking:
    """Return the rows whose evol score is known, best first, as far as that is certain.

    A row that `select` never reached may lack its score; none that it could beat may stand in
    front of it.
    """
    table = selection.candidates
    has_score = table["evol_score"].is_valid()
    known = table.filter(has_score).sort_by([("evol_score", "descending"), ("id", "ascending")])
    had_no_place = pc.is_in(table["decision"], value_set=pa.array(NO_PLACE))
    unknown = table.filter(pc.and_(pc.invert(has_score), had_no_place))
    if unknown.num_rows:
        bounds = unknown["evol_upper"]
        bound = None if bounds.null_count else pc.max(bounds).as_py()
        certain = pa.scalar(float("inf") if bound is None else bound)
        known = known.filter(pc.greater(known["evol_score"], certain))
    return _Ranking(known["id"].to_pylist(), is_complete=not unknown.num_rows)


def _fill(selection: SelectionResult, ranking: _Ranking, budget: Budget, group: str) -> TrainingSet:
    """Return the first rows of a ranking that can be trained on, as many as the budget holds."""
    if group == "everything":
        return build_training_set(selection.encoded(ranking.ids), selection.max_length)
    rows: list[EncodedRow | LeftOut] = []
    used = 0
    for row in selection.encoded(ranking.ids):
        cost = _cost(row, selection.max_length, budget.by)
        if used + cost > budget.amount:
            break
        rows.append(row)
        used += cost
        if used == budget.amount:
            break
    else:
        if not ranking.is_complete:
            raise _NotCertain(
                "top_score is left out: the ledger has too few evol scores to tell the best rows "
                "for certain; select again with --evaluation all"
            )
    return build_training_set(rows, selection.max_length)


def _cost(row: EncodedRow | LeftOut, max_length: int, by: str) -> int:
    """Return what a row takes of the budget; nothing if it cannot be trained on."""
    if isinstance(row, LeftOut):
        return 0
    window = row.whole.cut(max_length)
    if not window.trained:
        return 0
    return 1 if by == "rows" else len(window.input_ids)


def first_prompt(conversation: Conversation) -> str:
    """Return what the user says first. Raises StopIteration for a conversation without a user."""
    return next(turn.content for turn in conversation.turns if turn.role == "user")


def prompt_key(prompt: str) -> str:
    """Return a prompt as it is compared: in small letters, with single spaces."""
    return " ".join(prompt.split()).casefold()


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Return `ids` in pieces of at most CHUNK, so that not all texts are in memory at once."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
