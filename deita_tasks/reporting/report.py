"""The report: one self-contained page on what was selected from what, and why.

required = required_rows(ledger)                         # which texts and vectors to fetch
report = build_report(ReportData(manifest, ledger, ...)) # report.html, and each figure by itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from deita_tasks.conversations import Conversation
from deita_tasks.manifest import Manifest
from deita_tasks.records import SCORE_KINDS
from deita_tasks.reporting import figures
from deita_tasks.reporting.changes import Changes
from deita_tasks.reporting.composition import (
    ColumnCounts,
    ValueCount,
    ValueRow,
    find_vanished,
    lay_out,
)
from deita_tasks.reporting.examples import (
    example_groups,
    example_ids,
    group_excluded,
    group_quarantined,
    group_unscorable,
)
from deita_tasks.reporting.figures import Split
from deita_tasks.reporting.geometry import fit_plane, nearest_similarities
from deita_tasks.reporting.overview import find_lost, find_truncation, overview, with_ranges
from deita_tasks.reporting.parameters import explain_parameters, list_models
from deita_tasks.reporting.render import render
from deita_tasks.reporting.statistics import (
    compares_by_cosine,
    distinct_rows,
    distributions,
    is_partial,
    limit_measure,
    named_scores,
    pool_sample,
    ranking_name,
    ranks_by_evol,
    selection_limit,
    selection_reach,
    summary_table,
    with_decision,
)
from deita_tasks.reporting.topics import Topic, find_topics, topic_text
from deita_tasks.selecting.arrays import Floats
from deita_tasks.selecting.sampling import POOL_SAMPLE, smallest_ids
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader

# Ids are digests of the texts, so the smallest ones are a random sample, and the same one whatever
# the order of the rows.
SAMPLE_POOL = 4_000  # rows of the pool on the map
SAMPLE_MAP = 2_000  # selected rows on the map
SAMPLE_NEAREST = 2_000  # selected rows whose nearest neighbour is looked for ...
SAMPLE_KEPT = 10_000  # ... among so many selected rows: 40 MB for 1,024 dimensions
SAMPLE_TEXTS = 1_000  # rows of the map whose words title the topics

MAX_STRATA = 50  # shown in a table


class RequiredRows(NamedTuple):
    """Ids whose conversations and whose vectors the report shows.

    texts: those whose words title the topics, which only a report with vectors has.
    """

    conversations: list[str]
    vectors: list[str]
    texts: list[str]


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    ledger: as `build_ledger` gives it. shapes: id, n_pairs (user turns), n_words of every good row,
    in any order, repeated ids allowed. conversations: by id, those of `required_rows`, and those of
    its `texts` with vectors. quarantine: source_uri, source_row, reason, detail, and raw where it
    is at hand. vectors: float32 (n, d), row i of vector_ids[i], not normalised, NaN for none; those
    of `required_rows`, or None without embeddings. columns: of few values, counted. changes: what
    is different from an earlier selection, if there is one to compare with.
    """

    manifest: Manifest
    ledger: pa.Table
    shapes: pa.Table
    conversations: Mapping[str, Conversation]
    quarantine: pa.Table
    vector_ids: Sequence[str] = ()
    vectors: Floats | None = None
    columns: Sequence[ColumnCounts] = ()
    changes: Changes | None = None


class Report(NamedTuple):
    """The page, and its figures by name as SVG."""

    html: bytes
    figures: dict[str, bytes]


class Units(NamedTuple):
    """Normalised vectors of a sample of the pool (p, d) and of the selected rows (k, d).

    pool_ids: of the first. selected: how many rows are selected in all.
    """

    pool_ids: list[str]
    pool: Floats
    kept: Floats
    selected: int


class VectorFacts(NamedTuple):
    """What the captions state of the figures that need vectors.

    nearest: the selected rows whose nearest neighbour was looked for, among a sample of `among` of
    the `selected`. explained: the share of the variance that the map shows. pool: how many of
    the pool's `rows` are on the map and in the topics.
    """

    nearest: int
    among: int
    selected: int
    explained: float
    pool: int
    rows: int
    topics: list[ValueRow]


def required_rows(ledger: pa.Table, is_lazy: bool = False) -> RequiredRows:
    """Return which rows of the pool the report will show.

    They are a few dozen conversations, at most SAMPLE_TEXTS texts and SAMPLE_POOL + SAMPLE_KEPT
    vectors. is_lazy: whether only some rows have vectors.
    """
    distinct = distinct_rows(ledger)
    selected = with_decision(distinct, "selected")
    of_pool = _map_ids(ledger, is_lazy)
    vectors = {*of_pool, *_sample(selected["id"], SAMPLE_KEPT)}
    return RequiredRows(sorted(example_ids(ledger)), sorted(vectors), of_pool[:SAMPLE_TEXTS])


def _map_ids(ledger: pa.Table, is_lazy: bool) -> list[str]:
    """Return the ids of the sample that stands for the pool on the map."""
    rows = min(SAMPLE_POOL, POOL_SAMPLE) if is_lazy else SAMPLE_POOL
    ids: list[str] = pool_sample(ledger, rows)["id"].to_pylist()
    return ids


def build_report(data: ReportData) -> Report:
    """Return the page for `data`; equal data give equal bytes."""
    splits = distributions(data.ledger, data.shapes)
    drawings = _draw_distributions(data.manifest, splits)
    facts = None
    if data.vectors is not None:
        units = _sample_vectors(data, data.vectors)
        vector_drawings, facts = _draw_vectors(data, units)
        drawings |= vector_drawings
    page = render(
        "report.html.jinja",
        manifest=data.manifest,
        counts=data.manifest.counts,
        figures={name: figures.on_page(drawing) for name, drawing in drawings.items()},
        facts=facts,
        changes=data.changes,
        **_gains(data, splits),
        **_reasons(data, splits),
        **_losses(data),
    )
    return Report(page, drawings)


def _gains(data: ReportData, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Return what the page says of the first question: what did I get?"""
    columns = with_ranges(data.columns, splits)
    vanished = data.manifest.findings.vanished
    strata = sorted(data.manifest.strata, key=lambda each: -each.rows)
    return {
        "overview": overview(data.ledger, data.columns, splits),
        "composition": lay_out(columns, vanished),
        "lost": find_lost(columns, vanished),
        "strata": strata[:MAX_STRATA],
        "summary": summary_table(splits, ranking_name(data.manifest)),
    }


def _reasons(data: ReportData, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Return what the page says of the second question: why these?"""
    manifest = data.manifest
    measure = limit_measure(manifest)
    limit = selection_limit(manifest)
    groups = example_groups(data.ledger, data.conversations, limit, measure)
    return {
        "reach": selection_reach(data.ledger, manifest),
        "ranking": ranking_name(manifest),
        "ranks_by_evol": ranks_by_evol(manifest),
        "named_scores": named_scores(splits),
        "partial": _describe_partial(data.ledger),
        "groups": [group for group in groups if group.examples],
        "measure": measure,
        "limit": limit,
        "parameters": explain_parameters(manifest),
        "models": list_models(manifest),
    }


def _losses(data: ReportData) -> dict[str, Any]:
    """Return what the page says of the third question: what did I lose?"""
    manifest = data.manifest
    findings = manifest.findings.sentences(manifest.counts.model_dump())
    return {
        "truncation": find_truncation(data.ledger, manifest),
        "bad": group_quarantined(data.quarantine),
        "unscorable": group_unscorable(data.ledger),
        "excluded": group_excluded(data.ledger),
        "notes": [*findings, *manifest.filter_sentences()],
    }


def _describe_partial(ledger: pa.Table) -> str:
    """Return which rows have scores, if only some have."""
    distinct = distinct_rows(ledger)
    if not is_partial(distinct):
        return ""
    scored = distinct.num_rows - distinct["evol_score"].null_count
    sampled = pool_sample(ledger).num_rows
    return (
        f"Scores were computed only where they could change the selection: {scored:,} of "
        f"{distinct.num_rows:,} rows have an evol score. The others cannot come before the last "
        f"one selected. Where a score is not known for every row, a random sample of {sampled:,} "
        "rows stands for the pool. With evaluation = all, every row is scored."
    )


def _draw_distributions(manifest: Manifest, splits: Mapping[str, Split]) -> dict[str, bytes]:
    """Return the figures that need no vectors, by name."""
    plots = {
        "decisions": (figures.WIDE, figures.decisions(manifest.counts.model_dump())),
        "evol_score": (
            figures.WIDE,
            figures.histogram(splits["evol score"], ranking_name(manifest), "conversations"),
        ),
        "words": (
            figures.NARROW,
            figures.histogram(splits["words"], "words in all turns", "conversations", log=True),
        ),
        "turns": (figures.NARROW, figures.turns(splits["user turns"])),
    }
    for kind in SCORE_KINDS:
        if not ranks_by_evol(manifest) and not len(splits[kind].pool):
            continue
        title = f"{kind} of a user turn"
        plot = figures.histogram(splits[kind], title, "user turns", limits=(1, 6))
        plots[kind] = (figures.NARROW, plot)
    for name in named_scores(splits):
        plot = figures.histogram(splits[name], f"{name} of a user turn", "user turns")
        plots[name] = (figures.NARROW, plot)
    return {name: figures.svg(name, size, plot) for name, (size, plot) in plots.items()}


def _sample_vectors(data: ReportData, vectors: Floats) -> Units:
    """Return the normalised vectors of the samples that the figures show."""
    distinct = distinct_rows(data.ledger)
    selected = with_decision(distinct, "selected")["id"]
    rows, usable = EmbeddingReader(vectors, len(vectors)).read(np.arange(len(vectors)))
    units = rows[usable]
    usable_ids = np.asarray(data.vector_ids, dtype=object)[usable]
    positions = {id_: position for position, id_ in enumerate(usable_ids)}

    def units_of(ids: Sequence[str]) -> Floats:
        """Return the vectors of `ids`, float32 (n, d); those without a vector are left out."""
        return units[[positions[id_] for id_ in ids if id_ in positions]]

    map_ids = _map_ids(data.ledger, data.manifest.evaluation == "lazy")
    map_ids = [id_ for id_ in map_ids if id_ in positions]
    kept = units_of(_sample(selected, SAMPLE_KEPT))
    return Units(map_ids, units_of(map_ids), kept, len(selected))


def _draw_vectors(data: ReportData, units: Units) -> tuple[dict[str, bytes], VectorFacts]:
    """Return the figures that need vectors, where there are enough of them."""
    drawings = {}
    distinct = distinct_rows(data.ledger)
    nearest = nearest_similarities(units.kept, SAMPLE_NEAREST)
    rejected = with_decision(distinct, "too_similar")["similarity"].to_numpy()
    if compares_by_cosine(data.manifest) and (len(nearest) or len(rejected)):
        plot = figures.similarities(rejected, nearest, selection_limit(data.manifest))
        drawings["similarity"] = figures.svg("similarity", figures.WIDE, plot)
    topics = _find_topics(data, units)
    plane = fit_plane(units.pool)
    if plane:
        points = plane.place(units.pool)
        selected_points = plane.place(units.kept[:SAMPLE_MAP])
        totals = (distinct.num_rows, units.selected)
        places = [plane.place(topic.centre) for topic in topics]
        plot = figures.scatter(points, selected_points, totals, plane.explained, places)
        drawings["map"] = figures.svg("map", figures.map_size(points), plot)
    facts = VectorFacts(
        len(nearest),
        len(units.kept),
        units.selected,
        sum(plane.explained) if plane else 0.0,
        len(units.pool),
        distinct.num_rows,
        _topic_rows(topics),
    )
    return drawings, facts


def _find_topics(data: ReportData, units: Units) -> list[Topic]:
    """Return the topics of the rows on the map."""
    texts = {
        id_: topic_text(data.conversations[id_])
        for id_ in units.pool_ids[:SAMPLE_TEXTS]
        if id_ in data.conversations
    }
    return find_topics(units.pool_ids, units.pool, units.kept, texts)


def _topic_rows(topics: Sequence[Topic]) -> list[ValueRow]:
    """Return the topics as rows of a table, marked where no selected row has one."""
    counts = [ValueCount(topic.title, topic.pool, topic.selected) for topic in topics]
    column = ColumnCounts("topic", counts)
    tables = lay_out([column], find_vanished(column)).tables
    return tables[0].rows if tables else []


def _sample(ids: pa.ChunkedArray, count: int) -> list[str]:
    """Return the `count` smallest of `ids`, ascending."""
    sample: list[str] = ids.take(smallest_ids(ids, count)).to_pylist()
    return sample
