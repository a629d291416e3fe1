"""The report: one self-contained page on what was selected from what, and why.

required = required_rows(ledger)                         # which texts and vectors to fetch
report = build_report(ReportData(manifest, ledger, ...)) # report.html, and each figure by itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from deita_tasks.conversations import Conversation
from deita_tasks.manifest import Manifest
from deita_tasks.records import SCORE_KINDS
from deita_tasks.reporting import figures
from deita_tasks.reporting.changes import Changes
from deita_tasks.reporting.composition import ColumnCounts, lay_out
from deita_tasks.reporting.examples import (
    example_groups,
    example_ids,
    group_excluded,
    group_quarantined,
    group_unscorable,
)
from deita_tasks.reporting.figures import Split
from deita_tasks.reporting.geometry import fit_plane, nearest_similarities
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
from deita_tasks.selecting.arrays import Floats
from deita_tasks.selecting.sampling import POOL_SAMPLE, smallest_ids
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader

# Ids are digests of the texts, so the smallest ones are a random sample, and the same one whatever
# the order of the rows.
SAMPLE_POOL = 4_000  # rows of the pool on the map
SAMPLE_MAP = 2_000  # selected rows on the map
SAMPLE_NEAREST = 2_000  # selected rows whose nearest neighbour is looked for ...
SAMPLE_KEPT = 10_000  # ... among so many selected rows: 40 MB for 1,024 dimensions

MAX_STRATA = 50  # shown in a table


class RequiredRows(NamedTuple):
    """Ids whose conversations and whose vectors the report shows."""

    conversations: list[str]
    vectors: list[str]


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    ledger: as `build_ledger` gives it. shapes: id, n_pairs (user turns), n_words of every good row,
    in any order, repeated ids allowed. conversations: by id, those of `required_rows`. quarantine:
    source_uri, source_row, reason, detail, and raw where it is at hand. vectors: float32 (n, d),
    row i of vector_ids[i], not normalised, NaN for none; those of `required_rows`, or None without
    embeddings. columns: of few values, counted. changes: what is different from an earlier
    selection, if there is one to compare with.
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

    selected: how many rows are selected in all.
    """

    pool: Floats
    kept: Floats
    selected: int


class VectorFacts(NamedTuple):
    """What the captions state of the figures that need vectors.

    nearest: the selected rows whose nearest neighbour was looked for, among a sample of `among` of
    the `selected`. explained: the share of the variance that the map shows.
    """

    nearest: int
    among: int
    selected: int
    explained: float


def required_rows(ledger: pa.Table, is_lazy: bool = False) -> RequiredRows:
    """Return which rows of the pool the report will show.

    They are a few dozen texts, and at most SAMPLE_POOL + SAMPLE_KEPT vectors. is_lazy: whether only
    some rows have vectors.
    """
    distinct = distinct_rows(ledger)
    selected = with_decision(distinct, "selected")
    of_pool = _map_ids(ledger, is_lazy)
    vectors = {*of_pool, *_sample(selected["id"], SAMPLE_KEPT)}
    return RequiredRows(sorted(example_ids(ledger)), sorted(vectors))


def _map_ids(ledger: pa.Table, is_lazy: bool) -> list[str]:
    """Return the ids of the sample that stands for the pool on the map."""
    rows = min(SAMPLE_POOL, POOL_SAMPLE) if is_lazy else SAMPLE_POOL
    ids: list[str] = pool_sample(ledger, rows)["id"].to_pylist()
    return ids


def build_report(data: ReportData) -> Report:
    """Return the page for `data`; equal data give equal bytes."""
    manifest = data.manifest
    splits = distributions(data.ledger, data.shapes)
    measure = limit_measure(manifest)
    groups = example_groups(data.ledger, data.conversations, selection_limit(manifest), measure)
    drawings = _draw_distributions(manifest, splits)
    facts = None
    if data.vectors is not None:
        units = _sample_vectors(data, data.vectors)
        vector_drawings, facts = _draw_vectors(data, units)
        drawings |= vector_drawings
    page = render(
        "report.html.jinja",
        manifest=manifest,
        counts=manifest.counts,
        strata=sorted(manifest.strata, key=lambda each: -each.rows)[:MAX_STRATA],
        # Not escaped: these figures are drawn here, of numbers alone.
        figures={name: Markup(drawing.decode()) for name, drawing in drawings.items()},
        facts=facts,
        reach=selection_reach(data.ledger, manifest),
        summary=summary_table(splits, ranking_name(manifest)),
        ranking=ranking_name(manifest),
        ranks_by_evol=ranks_by_evol(manifest),
        named_scores=named_scores(splits),
        partial=_describe_partial(data.ledger),
        groups=[group for group in groups if group.examples],
        measure=measure,
        bad=group_quarantined(data.quarantine),
        unscorable=group_unscorable(data.ledger),
        excluded=group_excluded(data.ledger),
        changes=data.changes,
        notes=[
            *manifest.findings.sentences(manifest.counts.model_dump()),
            *manifest.filter_sentences(),
        ],
        composition=lay_out(data.columns, manifest.findings.vanished),
    )
    return Report(page, drawings)


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
        return units[[positions[id_] for id_ in ids if id_ in positions]]

    of_pool = units_of(_map_ids(data.ledger, data.manifest.evaluation == "lazy"))
    return Units(of_pool, units_of(_sample(selected, SAMPLE_KEPT)), len(selected))


def _draw_vectors(data: ReportData, units: Units) -> tuple[dict[str, bytes], VectorFacts]:
    """Return the figures that need vectors, where there are enough of them."""
    drawings = {}
    distinct = distinct_rows(data.ledger)
    nearest = nearest_similarities(units.kept, SAMPLE_NEAREST)
    rejected = with_decision(distinct, "too_similar")["similarity"].to_numpy()
    if compares_by_cosine(data.manifest) and (len(nearest) or len(rejected)):
        plot = figures.similarities(rejected, nearest, selection_limit(data.manifest))
        drawings["similarity"] = figures.svg("similarity", figures.WIDE, plot)
    plane = fit_plane(units.pool)
    if plane:
        points = plane.place(units.pool)
        selected_points = plane.place(units.kept[:SAMPLE_MAP])
        totals = (distinct.num_rows, units.selected)
        plot = figures.scatter(points, selected_points, totals, plane.explained)
        drawings["map"] = figures.svg("map", figures.map_size(points), plot)
    explained = sum(plane.explained) if plane else 0.0
    return drawings, VectorFacts(len(nearest), len(units.kept), units.selected, explained)


def _sample(ids: pa.ChunkedArray, count: int) -> list[str]:
    """Return the `count` smallest of `ids`, ascending."""
    sample: list[str] = ids.take(smallest_ids(ids, count)).to_pylist()
    return sample
