"""Check records against a finished selection, without a new run.

    checker = open_checker("selection")
    checker.check([conversation])

The components are those of the selection's manifest. They stay loaded, and so do the vectors of the
rows that the selection looked at. Nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from deita_tasks import config, storage
from deita_tasks.artifacts.candidates import incomparable, open_vectors
from deita_tasks.artifacts.exclusions import describe_overlap
from deita_tasks.artifacts.parts import WIDTH, PartSet, StageParts
from deita_tasks.artifacts.pool_strata import label_of
from deita_tasks.artifacts.scores import EMBEDDING, RankRule, assemble_scores
from deita_tasks.conversations import Conversation, Quarantined
from deita_tasks.decisions import Decision, LedgerRow
from deita_tasks.embedding import load_embedder
from deita_tasks.embedding.base import Embedder
from deita_tasks.errors import ModelError, UsageError
from deita_tasks.filtering.decontamination import EvaluationTexts
from deita_tasks.filtering.training_window import are_beyond, describe_beyond, describe_uncut
from deita_tasks.loading import encode_rows, open_pool, pool_files
from deita_tasks.manifest import Manifest
from deita_tasks.plan import (
    Filters,
    RunSettings,
    embedder_spec,
    pin_spec,
    plan_filters,
    score_spec,
    selector_spec,
)
from deita_tasks.results import explain
from deita_tasks.results.cut_pool import TurnCutter
from deita_tasks.results.evaluation_texts import read_evaluation_texts
from deita_tasks.results.reading import read_ledger, read_manifest
from deita_tasks.results.record_check import RecordCheck
from deita_tasks.results.standing import Standing, reached
from deita_tasks.results.stored_component import StoredComponent
from deita_tasks.results.versions import result_uri
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.base import Scorer
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.arrays import Floats
from deita_tasks.selecting.evol import ranking_scores
from deita_tasks.selecting.random import Random
from deita_tasks.validation import explain_error
from deita_tasks.words import count_words

MAX_CHECKERS = 4  # results whose models and vectors a process keeps


class _Problem(NamedTuple):
    """Why a record is no candidate."""

    decision: Decision
    reason: str


class RecordChecker:
    """A finished selection with its components. Open it by `open_checker`."""

    def __init__(self, uri: str, manifest: Manifest, store: str | None) -> None:
        self._manifest = manifest
        self._pool = explain.open_pool(manifest.pool, store)
        input_files = [file.uri for file in manifest.inputs]
        self._settings = RunSettings(pool=input_files)
        self._groups = _groups(uri, manifest)
        selection = self._groups["selection"]
        preset: Any = manifest.preset
        spec = selector_spec(preset, selection, self._settings)
        self._selector = load_selector(spec["name"], **spec["options"])
        store_uri = self._pool.uri.rsplit("/", 2)[0]
        self._stages = list(self._open_stages(preset, store_uri))
        self._filters: Filters = plan_filters(self._groups["filtering"], selection)
        ledger = read_ledger(uri, manifest.outputs)
        with ExitStack() as scratch:
            vectors = self._read_vectors(reached(ledger), scratch)
            why_open = self._why_open(selection)
            self.standing = Standing(ledger, self._pool, self._selector, vectors, why_open)
            self._scratch = scratch.pop_all()

    def _why_open(self, selection: config.Selection) -> str | None:
        """Return why only a run can decide about a record; None for the strategy's own reasons."""
        if selection.budget_tokens is not None:
            return "the budget is in tokens"
        if self._filters.similarity is not None:
            return "evaluation rows are compared by their embeddings"
        return None

    def _open_stages(self, preset: Any, store: str) -> Iterator[StoredComponent]:
        """Yield the components. Raises ModelError for one that is not that of the manifest."""
        for name in (*self._selector.score_names, EMBEDDING):
            fingerprint = self._manifest.fingerprints.get(name)
            if fingerprint is None:
                continue
            component = self._load(name, preset, fingerprint)
            digest = storage.digest_of(fingerprint)
            if storage.digest_of(component.fingerprint()) != digest:
                raise ModelError(
                    f"{name}: this machine would compute with {component.fingerprint()}, and the "
                    f"selection was made with {fingerprint}; expected the same model files, and "
                    "the same version of deita-tasks"
                )
            kind, _, _ = name.partition(":")
            folder = "embeddings" if name == EMBEDDING else f"scores/{kind}"
            uri = storage.join(store, *folder.split("/"), digest)
            part_set = PartSet(uri=uri, fingerprint=digest, row_key=component.ROW_KEY)
            yield StoredComponent(name, component, part_set)

    def _load(self, name: str, preset: Any, fingerprint: Mapping[str, Any]) -> Scorer | Embedder:
        """Return the component of a stage, by the parameters of the run; loads no model.

        Number type and revision are those that the run has found.
        """
        if name == EMBEDDING:
            spec = embedder_spec(preset, self._groups["embedding"], self._settings)
        else:
            names = self._selector.score_names
            spec = score_spec(preset, name, self._groups["scoring"], self._settings, names)
        load: Any = load_embedder if name == EMBEDDING else load_scorer
        component: Scorer | Embedder = load(spec["name"], **spec["options"])
        pinned = pin_spec(spec, component, fingerprint)
        if pinned == spec:
            return component
        pinned_component: Scorer | Embedder = load(pinned["name"], **pinned["options"])
        return pinned_component

    def _read_vectors(self, rows: pa.Table, scratch: ExitStack) -> Floats | None:
        """Return the vectors of some rows; those of a large result lie in a scratch file."""
        parts = {}
        for stage in self._stages:
            if stage.name == EMBEDDING:
                digests = stage.part_set.digests()
                parts[stage.name] = StageParts(part_set=stage.part_set, digests=digests)
        opened = open_vectors(self._pool, rows["id"], parts)
        return scratch.enter_context(opened)

    # ---- records

    def check(
        self, rows: Sequence[Conversation | Quarantined], format: str | None = None
    ) -> list[RecordCheck]:
        """Return what the selection would make of each of `rows`, by itself.

        format: as which they were read.
        """
        rows = [self._cut(row) for row in rows]
        known: list[dict[str, Any] | None] = []
        candidates: list[Conversation] = []
        for row in rows:
            fields = self._judge_without_models(row)
            known.append(fields)
            if fields is None and isinstance(row, Conversation):
                candidates.append(row)
        computed = iter(self._judge(candidates))
        checks = []
        for row, fields in zip(rows, known, strict=True):
            fields = next(computed) if fields is None else fields
            place = f"{row.source.uri}:{row.source.row}"
            check = RecordCheck(record=place, format=format, **fields)
            checks.append(check)
        return checks

    def _cut(self, row: Conversation | Quarantined) -> Conversation | Quarantined:
        """Return what is left of a record that is cut at a turn to fit the training window."""
        cutter = self._cutter
        if isinstance(row, Quarantined) or cutter is None:
            return row
        return row if cutter.fits(row) else cutter.cut(row) or row

    @cached_property
    def _cutter(self) -> TurnCutter | None:
        """What cuts long records; None if the run left them whole."""
        counting = self._filters.tokens
        if counting is None or counting.cut_window is None:
            return None
        return TurnCutter(counting.counter, counting.cut_window)

    def _judge_without_models(self, row: Conversation | Quarantined) -> dict[str, Any] | None:
        """Return the fields of a record that is no candidate; None if models have to say more."""
        if isinstance(row, Quarantined):
            detail = f": {row.detail}" if row.detail else ""
            return {"decision": "quarantined", "reason": f"{row.reason}{detail}"}
        same = self.standing.find(row.id)
        if same is not None:
            return _repeated(same)
        problem = self._contamination(row) or self._token_problem(row)
        if problem is None:
            return None
        return {"id": row.id, "decision": problem.decision, "reason": problem.reason}

    @cached_property
    def _evaluation(self) -> EvaluationTexts | None:
        """The evaluation texts; None without decontamination."""
        decontamination = self._filters.decontamination
        if decontamination is None:
            return None
        return read_evaluation_texts(decontamination.files, decontamination.rule, [])

    def _contamination(self, row: Conversation) -> _Problem | None:
        """Return what of an evaluation text the record repeats, if that is too much."""
        evaluation = self._evaluation
        if evaluation is None:
            return None
        texts = [turn.content for turn in row.turns]
        (overlap,) = evaluation.find_overlaps([texts])
        if overlap is None:
            return None
        reason = describe_overlap(overlap, evaluation.rule.words)
        return _Problem("contaminated", reason)

    def _token_problem(self, row: Conversation) -> _Problem | None:
        """Return why the training window leaves nothing of the record, if so."""
        counting = self._filters.tokens
        if counting is None:
            return None
        (count,) = counting.counter.count([row])
        if isinstance(count, str):
            return _Problem("unscorable", f"tokens: {count}")
        before_answer = np.array([count.before_answer])
        if counting.cut_window is not None:
            if count.tokens <= counting.cut_window:
                return None
            return _Problem("too_long", describe_uncut(count.tokens, counting.cut_window))
        if not are_beyond(before_answer, counting.window)[0]:
            return None
        reason = describe_beyond(count.tokens, count.before_answer, counting.window)
        return _Problem("too_long", reason)

    def _judge(self, rows: Sequence[Conversation]) -> Iterator[dict[str, Any]]:
        """Yield the fields of each of some candidates."""
        if not rows:
            return
        tables = {stage.name: stage.values(rows) for stage in self._stages}
        vectors: list[Floats | None] = [None] * len(rows)
        if EMBEDDING in tables:
            table = tables[EMBEDDING]
            vectors = [_array(values) for values in table["values"].to_pylist()]
            widths = [None if vector is None else len(vector) for vector in vectors]
            column = pa.array(widths, pa.int32())
            tables[EMBEDDING] = table.append_column(WIDTH, column)
        turns = np.array([len(row.pairs) for row in rows])
        ids = pa.array([row.id for row in rows])
        rule = self._rule(rows)
        scores = assemble_scores(ids, turns, tables, self._selector.evol_score, rule)
        fields = scores.table.to_pylist()
        for row, of_row, vector in zip(rows, fields, vectors, strict=True):
            yield self._judge_row(row, of_row, vector)

    def _rule(self, rows: Sequence[Conversation]) -> RankRule | None:
        """Return the rule by which the strategy ranks the records; None for the evol score."""
        expression = self._selector.expression
        if expression is None:
            return None
        lengths = np.array([_words(row) for row in rows], np.int64)
        return RankRule(expression, lengths, self._selector.ifd_limit)

    def _judge_row(
        self, row: Conversation, scores: Mapping[str, Any], vector: Floats | None
    ) -> dict[str, Any]:
        """Return the fields of a candidate. scores: a row of SCORES."""
        fields: dict[str, Any] = {}
        for name in ("id", "complexity", "quality", "scores", "truncated"):
            fields[name] = scores[name]
        evol_score = scores["evol_score"]
        if np.isfinite(evol_score):
            ranks = self.standing.ranks(row.id, evol_score)
            fields["evol_score"] = evol_score
            fields["rank"] = ranks.first
            fields["last_rank"] = ranks.last
            fields["ranked"] = ranks.ranked
        problem = scores["problem"] or self._vector_problem(vector)
        if problem is not None:
            return {**fields, "decision": "unscorable", "reason": problem}
        score = self._ranking_score(row, scores)
        column = self._selector.strata_column
        label = None if column is None else label_of(row, column)
        why_unknown = self.standing.why_unknown(label)
        if why_unknown is None:
            return {**fields, **self._decide(row.id, score, vector, label)}
        nearest = self.standing.nearest(row.id, score, vector)
        fields["nearest"] = self.standing.describe(nearest)
        fields["decision"] = None
        fields["reason"] = f"{why_unknown}: whether it would come in takes a run"
        return fields

    def _vector_problem(self, vector: Floats | None) -> str | None:
        """Return why a vector cannot be compared; None if it can, or there is none."""
        width = self.standing.dimensions
        if vector is None or width is None:
            return None
        if len(vector) != width:
            return f"embedding: its vector has {len(vector)} numbers, where most have {width}"
        return incomparable(vector[None, :]).get(0)

    def _ranking_score(self, row: Conversation, scores: Mapping[str, Any]) -> float:
        """Return the score that the strategy ranks the record by."""
        selector = self._selector
        if selector.rank_by is not None:
            return float(scores["evol_score"])
        floats = pa.list_(pa.float32())
        complexity = pa.array([scores["complexity"]], floats)
        quality = pa.array([scores["quality"]], floats)
        ranking = ranking_scores(
            selector.ranking, selector.evol_score, complexity, quality, [_words(row)]
        )
        return float(ranking[0])

    def _decide(
        self, id: str, score: float, vector: Floats | None, label: str | None
    ) -> dict[str, Any]:
        """Return the decision on a candidate, and what changes for other rows.

        label: of its stratum, if a column makes strata.
        """
        standing = self.standing
        insertion = standing.insert(id, score, vector, label)
        blocker = standing.describe(insertion.blocker)
        reason = self._budget_reason(insertion.decision, score)
        if blocker is not None:
            measure = self._measure
            place = blocker.row.place
            reason = f"{measure} {blocker.similarity:.4f} to {place}, selected before it"
        elif insertion.decision == "stratum_full":
            reason = f"{self._selector.strata_column} = {label}: no place is left for it there"
        return {
            "decision": insertion.decision,
            "reason": reason,
            "nearest": standing.describe(insertion.nearest),
            "blocker": blocker,
            "pushed_out": standing.name(insertion.pushed_out),
            "cut_off": standing.name(insertion.cut_off),
            "let_in": standing.name(insertion.let_in),
            "open_places": insertion.open_places,
        }

    def _budget_reason(self, decision: Decision, score: float) -> str:
        """Return why a candidate comes before the end of the budget, or after it."""
        is_below = decision == "below_budget"
        if isinstance(self._selector, Random):  # its order has nothing to do with scores
            side = "after" if is_below else "before"
            return f"its turn in the random draw comes {side} the end of the budget"
        if not is_below:
            return f"its score of {score:.3f} comes before the end of the budget"
        last = self.standing.last_score
        return f"its score is {score:.3f}, and the last one selected has {last:.3f}"

    @property
    def _measure(self) -> str:
        """What compares rows, in a word."""
        by_distance = getattr(self._selector, "min_distance", None) is not None
        return "distance" if by_distance else "similarity"


def _words(row: Conversation) -> int:
    """Return the words in all turns, as the pool counts them."""
    return sum(count_words(turn.content) for turn in row.turns)


def _array(values: list[float] | None) -> Floats | None:
    """Return a vector of a part; None where there is none."""
    return None if values is None else np.array(values, np.float32)


def _repeated(row: LedgerRow) -> dict[str, Any]:
    """Return the fields of a record that the pool has, as this row."""
    fields: dict[str, Any] = {"decision": "duplicate", "last_rank": row.rank}
    for name in ("id", "complexity", "quality", "scores", "evol_score", "rank"):
        fields[name] = getattr(row, name)
    decision = row.decision.replace("_", " ")
    fields["reason"] = f"the same conversation as {row.place}, {decision}"
    return fields


def _groups(uri: str, manifest: Manifest) -> dict[str, Any]:
    """Return the parameters of the run. Raises UsageError for those of another version."""
    classes: dict[str, type[config.Group]] = {
        "scoring": config.Scoring,
        "embedding": config.Embedding,
        "filtering": config.Filtering,
        "selection": config.Selection,
    }
    try:
        return {
            name: group.model_validate(manifest.parameters.get(name, {}))
            for name, group in classes.items()
        }
    except ValidationError as error:
        raise UsageError(
            f"{uri}: its parameters are not those of this version of deita-tasks "
            f"({explain_error(error)}); expected a result that this version made"
        ) from error


# ---- opening


def open_checker(output: str, store: str | None = None) -> RecordChecker:
    """Return the checker of the result in `output`, or of its latest version.

    This process keeps the checkers that were used last. store: where the store is now, if it has
    moved. Raises UsageError if there is no result.
    """
    uri = result_uri(output)
    explain.read_result(uri)  # says what is expected where there is none
    manifest = read_manifest(uri)
    return _cached_checker(uri, store, manifest.created.isoformat())


@lru_cache(MAX_CHECKERS)
def _cached_checker(uri: str, store: str | None, created: str) -> RecordChecker:
    """Return the checker of a result made at the time `created`."""
    return RecordChecker(uri, read_manifest(uri), store)


def check_records(
    output: str, records: Any, format: str = "auto", store: str | None = None
) -> list[RecordCheck]:
    """Return what the result in `output` would make of each record.

    records: a file, a folder or any URI that the loaders read; or rows: dicts, a DataFrame, a
    datasets.Dataset. format: a name of an input format. Raises what `read_conversations` raises.
    """
    checker = open_checker(output, store)
    if isinstance(records, str):
        return _check_files(checker, pool_files(records), format)
    rows = [records] if isinstance(records, Mapping) else records
    return _check_bytes(checker, b"".join(encode_rows(rows)), format)


def check_argument(
    output: str, record: str, format: str = "auto", store: str | None = None
) -> list[RecordCheck]:
    """Return the same for an argument of a command: a URI, "-" for standard input, or JSON."""
    if record == "-":
        return _check_bytes(open_checker(output, store), sys.stdin.buffer.read(), format)
    if record.lstrip().startswith(("{", "[")):
        return _check_bytes(open_checker(output, store), record.encode(), format)
    return check_records(output, record, format, store)


def _check_bytes(checker: RecordChecker, content: bytes, format: str = "auto") -> list[RecordCheck]:
    """Return what the selection would make of each record in the bytes of a file."""
    with storage.scratch_folder() as folder:
        place = Path(folder) / "records"
        place.write_bytes(content)
        checks = _check_files(checker, [str(place)], format)
    return [
        check.model_copy(update={"record": f"row {check.record.rsplit(':', 1)[1]}"})
        for check in checks
    ]


def _check_files(checker: RecordChecker, files: Iterable[str], format: str) -> list[RecordCheck]:
    """Return what the selection would make of each record in some files."""
    checks = []
    for uri in files:
        file = open_pool(uri, format)
        checks += checker.check(list(file), file.format.name)
    return checks
