"""The selection artifact: the rows selected from a pool, and a decision for every row of it.

<store>/selections/<digest>/
    decisions.parquet    one line for every row (see `ledger.py`)
    kept.parquet         the selected ids, in order
    excluded.parquet     what filters left out, if there are any (see `exclusions.py`)
    selection.json       counts; written last, so no selection is half there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, JsonValue, NonNegativeInt

from deita_tasks import storage
from deita_tasks.artifacts.candidates import (
    Candidates,
    StagesParts,
    open_candidates,
    read_scores,
)
from deita_tasks.artifacts.evaluation import Evaluation, LazyPlan, Outcome
from deita_tasks.artifacts.exclusions import EXCLUDED_FILE, EXCLUSIONS, read_exclusions
from deita_tasks.artifacts.ledger import EXCLUDED, SCHEMA, Limits, build_ledger
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.pool_strata import count_strata, strata_of, why_full
from deita_tasks.artifacts.references import read_reference
from deita_tasks.artifacts.token_budget import TokenBudget
from deita_tasks.config import Selection
from deita_tasks.errors import StorageError, TooFewRows
from deita_tasks.manifest import Counts, StratumCounts, TokenUse
from deita_tasks.presets import Spec
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.arrays import Mask
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.strata import Strata
from deita_tasks.storage import FileInfo
from deita_tasks.strict_json import JsonRecord

SELECTION_FILE = "selection.json"
DECISIONS_FILE = "decisions.parquet"
KEPT_FILE = "kept.parquet"
KEPT = pa.schema({"id": pa.string()})
SCHEMAS = {DECISIONS_FILE: SCHEMA, KEPT_FILE: KEPT, EXCLUDED_FILE: EXCLUSIONS}


class SelectorOptions(JsonRecord):
    """A strategy and the options it was given."""

    name: str
    options: dict[str, JsonValue]


class ReferenceUse(JsonRecord):
    """The reference of a strategy, and the column with the tags of each row, if it is of tags."""

    uri: str
    tags: str | None = None


class SelectionProvenance(JsonRecord):
    """What a selection depends on.

    fingerprints: of its scores and embeddings, by stage. exclusions, references: digests of those
    that it uses.
    """

    pool: str
    fingerprints: dict[str, str] = Field(alias="families")
    selector: SelectorOptions
    exclusions: list[str] = Field(default_factory=list)
    references: list[str] = Field(default_factory=list)


class SelectionSummary(JsonRecord):
    """selection.json. truncated: rows read in part, by stage. unscorable: rows by reason.

    tokens: if a tokenizer counts them. notes: of the filters. `provenance` is None in selections of
    early versions.
    """

    uri: str
    provenance: SelectionProvenance | None = Field(None, alias="made_of")
    counts: Counts
    strata: list[StratumCounts] = Field(default_factory=list)
    truncated: dict[str, NonNegativeInt]
    unscorable: dict[str, NonNegativeInt]
    files: dict[str, FileInfo]
    tokens: TokenUse | None = None
    notes: list[str] = Field(default_factory=list)

    def read(self, name: str) -> pa.Table:
        """Return one of the artifact's tables. Raises MissingFile or DamagedArtifact."""
        place = storage.checked_file(self.uri, name, self.files[name])
        return storage.read_table(place, schema=SCHEMAS[name])


def read_selection(uri: str) -> SelectionSummary:
    """Return the selection.json under `uri`. Raises MissingFile or DamagedArtifact.

    Its tables are read from there, wherever the store was when the file was written.
    """
    summary = storage.read_record(storage.join(uri, SELECTION_FILE), SelectionSummary)
    return summary.model_copy(update={"uri": uri})


def is_selection(uri: str) -> bool:
    """Return whether a complete, undamaged selection lies under `uri`.

    False too where the store cannot be read: then the caller writes it, and sees why not.
    """
    try:
        return storage.are_same(uri, read_selection(uri).files)
    except StorageError:
        return False


def write_selection(
    uri: str,
    pool: Pool,
    stage_parts: StagesParts,
    selector: Spec,
    lazy: LazyPlan | None = None,
    exclusions: Sequence[str] = (),
    budget_tokens: int | None = None,
    reference: ReferenceUse | None = None,
) -> SelectionSummary:
    """Select from `pool` by the scores and vectors in `stage_parts`; write the artifact.

    lazy: how the pool was evaluated; None if every row is computed. exclusions: of the filters.
    budget_tokens: the most that a training reads. reference: what rows are compared with.
    """
    left_out = read_exclusions(exclusions)
    pool = left_out.leave_out(pool)
    strategy = _load_strategy(selector, pool, reference)
    budget = left_out.budget(budget_tokens)
    outcome = _select(pool, stage_parts, strategy, lazy, budget)
    strata = _count_strata(strategy, outcome)
    limits = _limits(pool, strategy, outcome, strata, budget)
    ledger, counts = _ledger_of(pool, outcome, left_out.table, limits)
    tables = {DECISIONS_FILE: ledger, KEPT_FILE: _kept_table(outcome.result.kept)}
    if exclusions:
        tables[EXCLUDED_FILE] = left_out.table
    summary = SelectionSummary(
        uri=uri,
        provenance=SelectionProvenance(
            pool=pool.digest,
            fingerprints=_fingerprints(stage_parts) | left_out.fingerprints,
            selector=_selector_options(selector, strategy),
            exclusions=_names(exclusions),
            references=_names([] if reference is None else [reference.uri]),
        ),
        counts=counts,
        strata=strata,
        truncated=outcome.scores.truncated,
        unscorable=_count_reasons(ledger),
        files=_write_tables(uri, tables),
        tokens=left_out.token_use(outcome.result.kept, budget_tokens, pool.cuts),
        notes=list(left_out.notes),
    )
    storage.write_record(storage.join(uri, SELECTION_FILE), summary)
    return summary


def _load_strategy(selector: Spec, pool: Pool, reference: ReferenceUse | None) -> Selector:
    """Return the strategy, with the vectors or tags that it compares rows with, if any.

    Raises UsageError for an option that it does not have, and StorageError without the reference.
    """
    strategy = load_selector(selector["name"], **selector["options"])
    if reference is None:
        return strategy
    return strategy.with_reference(read_reference(reference.uri, pool, reference.tags))


def _ledger_of(
    pool: Pool, outcome: Outcome, excluded: pa.Table, limits: Limits
) -> tuple[pa.Table, Counts]:
    """Return the ledger of the pool, and the number of rows by decision.

    excluded: EXCLUSIONS, of which the ledger takes the columns of EXCLUDED.
    """
    excluded = excluded.select(EXCLUDED.names)
    rows = pool.with_cuts(pool.index(["id", "source_uri", "source_row"]))
    quarantine = pool.quarantine(["source_uri", "source_row", "reason", "detail"])
    scores = outcome.scores.table
    return build_ledger(rows, quarantine, scores, outcome.result, excluded, limits)


def _fingerprints(stage_parts: StagesParts) -> dict[str, str]:
    """Return the digest of the component that computed each stage, by stage."""
    fingerprints = {}
    for stage, parts in stage_parts.items():
        fingerprints[stage] = parts.part_set.fingerprint
    return fingerprints


def _kept_table(kept: Sequence[str]) -> pa.Table:
    """Return KEPT: the selected ids, the first one kept first."""
    ids = list(kept)
    return pa.table({"id": ids}, schema=KEPT)


def _selector_options(selector: Spec, strategy: Selector) -> SelectorOptions:
    """Return the strategy as it is named, with the options that were set."""
    options = strategy.model_dump(exclude_unset=True)
    return SelectorOptions(name=selector["name"], options=options)


def _names(artifacts: Sequence[str]) -> list[str]:
    """Return the digests of artifacts, which are the last steps of their URIs.

    So the record holds no path, and a store can be moved.
    """
    return [artifact.rsplit("/", 1)[-1] for artifact in artifacts]


def _select(
    pool: Pool,
    stage_parts: StagesParts,
    strategy: Selector,
    lazy: LazyPlan | None,
    budget: TokenBudget | None,
) -> Outcome:
    """Return the decisions, the scores behind them, and the strata of all distinct rows.

    After a lazy evaluation, the scores are only those that it needed. Raises StorageError for
    values that are not in the store, and TooFewRows if no row fits the token budget.
    """
    if lazy is not None:
        part_sets = {stage: parts.part_set for stage, parts in stage_parts.items()}
        evaluation = Evaluation(pool, strategy, part_sets, lazy, token_budget=budget)
        for stage, parts in stage_parts.items():
            evaluation.add(stage, parts.digests)
        return evaluation.outcome()
    scores = read_scores(pool, stage_parts, strategy)
    sizes_of = None if budget is None else budget.sizes_of
    of_pool = strata_of(pool, strategy, sizes_of)
    with open_candidates(pool, scores.table, stage_parts) as candidates:
        strata = candidates.strata(strategy, of_pool, sizes_of)
        if budget is None:
            result = candidates.select(strategy, strata)
        else:
            result = budget.select(candidates, strategy, strata)
        table = candidates.all_scores
        if of_pool is None and strata is not None:  # clusters, of the candidates alone
            of_pool = _spread(strata, pc.is_null(table["problem"]).to_numpy())
        return Outcome(result, scores._replace(table=table), of_pool)


def _spread(strata: Strata, is_candidate: Mask) -> Strata:
    """Return the strata of some of n rows as those of all n; the others have the code -1."""
    codes = np.full(len(is_candidate), -1, np.int64)
    codes[is_candidate] = strata.codes
    sizes = strata.sizes
    if sizes is not None:
        tokens = np.zeros(len(is_candidate), np.int64)
        tokens[is_candidate] = sizes.tokens
        sizes = sizes._replace(tokens=tokens)
    return replace(strata, codes=codes, sizes=sizes)


def _count_strata(strategy: Selector, outcome: Outcome) -> list[StratumCounts]:
    """Return the counts of each stratum, in the order of its code; [] without strata."""
    kept = pa.array(list(outcome.result.kept), pa.string())
    rows = pc.index_in(kept, value_set=outcome.scores.table["id"].combine_chunks())
    return count_strata(strategy, outcome.strata, rows.to_numpy())


def _limits(
    pool: Pool,
    strategy: Selector,
    outcome: Outcome,
    strata: Sequence[StratumCounts],
    budget: TokenBudget | None,
) -> Limits:
    """Return what limited a selection beside its similarities."""
    names = pa.nulls(outcome.scores.table.num_rows, pa.string())
    if outcome.strata is not None:
        codes = outcome.strata.codes
        names = pa.array(outcome.strata.names, pa.string()).take(pa.array(codes, mask=codes < 0))
    full = {stratum.stratum: why_full(stratum) for stratum in strata}
    return Limits(names, full, _why_below_budget(pool, strategy, outcome, budget))


def _why_below_budget(
    pool: Pool, strategy: Selector, outcome: Outcome, budget: TokenBudget | None
) -> pa.Array:
    """Return why a row is below the budget, if it is; null where the budget in rows was full."""
    scores = outcome.scores.table
    kept = outcome.result.kept
    why = pa.nulls(len(scores), pa.string())
    if budget is not None and len(kept) < strategy.budget:
        why = pa.repeat(budget.describe_end(kept), len(scores))
    count = getattr(strategy, "candidates", None)
    if count is None:
        return why
    rows = Candidates(pool, scores, vectors=None)
    ranked = RankedPool(rows.ids, rows.ranking(strategy))
    others = pa.array(rows.ids, pa.string()).take(pa.array(ranked.order[count:]))
    is_other = pc.is_in(scores["id"].combine_chunks(), value_set=others)
    return pc.if_else(is_other, f"not among the {count:,} best rows, the only candidates", why)


def _write_tables(uri: str, tables: Mapping[str, pa.Table]) -> dict[str, FileInfo]:
    """Write tables by file name, and return the size and the digest of each file."""
    infos = {}
    for name, table in tables.items():
        place = storage.join(uri, name)
        storage.write_table(place, table)
        infos[name] = storage.describe(place)
    return infos


def _count_reasons(ledger: pa.Table) -> dict[str, int]:
    """Return the number of unscorable rows, by reason."""
    unscorable = ledger.filter(pc.equal(ledger["decision"], "unscorable"))
    counts = unscorable["reason"].to_pandas().value_counts()
    return {str(reason): int(rows) for reason, rows in counts.items()}


def shortfall(counts: Counts, selection: Selection) -> str:
    """Return a message for a selection that is smaller than its budget in rows."""
    reached = ""
    if counts.stratum_full:
        reached = " whose stratum had room"
    elif counts.below_budget:
        reached = " that was considered"
    message = (
        f"The pool ran out before the budget: {counts.selected:,} of {selection.rows:,} "
        f"conversations were selected, and every row{reached} was reached."
    )
    if not counts.too_similar or selection.metric not in (None, "cosine"):
        return message
    return (
        f"{message}\n`deita solve --budget {selection.budget}` finds the smallest "
        "--max-similarity that fills it, if there is one."
    )


def is_short(counts: Counts, selection: Selection) -> bool:
    """Return whether the pool ran out before the budget in rows.

    Not where all rows are wanted, or where a budget in tokens may have ended the selection.
    """
    if selection.budget == "all" or selection.budget_tokens is not None:
        return False
    return counts.selected < selection.budget


def check_size(counts: Counts, selection: Selection) -> None:
    """Raise TooFewRows if the target size is exact and the pool ran out before it."""
    if selection.target_size == "exact" and is_short(counts, selection):
        raise TooFewRows(
            f"{shortfall(counts, selection)}\nThe target size is exact, so nothing was written; "
            "scores, vectors and decisions are in the store."
        )
