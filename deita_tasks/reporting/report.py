"""The report: one self-contained page on what was selected from what, and why.

needs = wanted(ledger)                                   # which texts and vectors to fetch
report = build_report(ReportData(manifest, ledger, ...)) # report.html, and each figure by itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from deita_tasks.manifest import Manifest
from deita_tasks.records import Conversation
from deita_tasks.reporting import figures
from deita_tasks.reporting.changes import Changes
from deita_tasks.reporting.examples import (
    example_groups,
    example_ids,
    group_quarantined,
    group_unscorable,
)
from deita_tasks.reporting.figures import Split
from deita_tasks.reporting.geometry import fit_plane, nearest_similarities
from deita_tasks.reporting.render import render
from deita_tasks.selecting.sampling import smallest_ids
from deita_tasks.selecting.similarity.embedding_reader import EmbeddingReader

# Ids are digests of the texts, so the smallest ones are a random sample, and the same one whatever
# the order of the rows.
SAMPLE_POOL = 4_000  # rows of the pool on the map
SAMPLE_MAP = 2_000  # selected rows on the map
SAMPLE_NEAREST = 2_000  # selected rows whose nearest neighbour is looked for ...
SAMPLE_KEPT = 10_000  # ... among so many selected rows: 40 MB for 1,024 dimensions


class Wanted(NamedTuple):
    """Ids whose conversations and whose vectors the report shows."""

    conversations: list[str]
    vectors: list[str]


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    ledger: as `build_ledger` gives it. shapes: id, n_pairs (user turns), n_words of every good row,
    in any order, repeated ids allowed. conversations: by id, those of `wanted`. quarantine:
    source_uri, source_row, reason, detail, and raw where it is at hand. vectors: float32 (n, d),
    row i of vector_ids[i], not normalised, NaN for none; those of `wanted`, or None without
    embeddings. changes: what is different from an earlier selection, if there is one to compare
    with.
    """

    manifest: Manifest
    ledger: pa.Table
    shapes: pa.Table
    conversations: Mapping[str, Conversation]
    quarantine: pa.Table
    vector_ids: Sequence[str] = ()
    vectors: NDArray[np.float32] | None = None
    changes: Changes | None = None


class Report(NamedTuple):
    """The page, and its figures by name as SVG."""

    html: bytes
    figures: dict[str, bytes]


def wanted(ledger: pa.Table) -> Wanted:
    """Which rows of the pool the report will show; a few dozen texts, at most SAMPLE_POOL +
    SAMPLE_KEPT vectors.
    """
    distinct = distinct_rows(ledger)
    vectors = {
        *smallest(distinct["id"], SAMPLE_POOL),
        *smallest(of(distinct, "selected")["id"], SAMPLE_KEPT),
    }
    return Wanted(sorted(example_ids(ledger)), sorted(vectors))


def build_report(data: ReportData) -> Report:
    """The page for `data`; equal data give equal bytes."""
    values = measures(data)
    drawn, facts = draw_figures(data, values)
    manifest, measure = data.manifest, measure_of(data.manifest)
    page = render(
        "report.html.jinja",
        manifest=manifest,
        counts=manifest.counts,
        figures={
            name: Markup(figure.decode()) for name, figure in drawn.items()
        },  # drawn here, of numbers alone
        facts=facts,
        reach=reach(data.ledger, manifest),
        summary=summary_table(values),
        groups=[
            group
            for group in example_groups(
                data.ledger, data.conversations, limit_of(manifest), measure
            )
            if group.examples
        ],
        measure=measure,
        bad=group_quarantined(data.quarantine),
        unscorable=group_unscorable(data.ledger),
        changes=data.changes,
    )
    return Report(page, drawn)


def draw_figures(
    data: ReportData, values: Mapping[str, Split]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The figures by name, and the numbers that their captions state."""
    drawn = {
        "decisions": figures.svg(
            "decisions", figures.WIDE, figures.decisions(data.manifest.counts.model_dump())
        ),
        "evol_score": figures.svg(
            "evol_score",
            figures.WIDE,
            figures.histogram(values["evol score"], "evol score", "conversations"),
        ),
        "words": figures.svg(
            "words",
            figures.NARROW,
            figures.histogram(values["words"], "words in all turns", "conversations", log=True),
        ),
        "turns": figures.svg("turns", figures.NARROW, figures.turns(values["user turns"])),
    }
    for kind in ("complexity", "quality"):
        draw = figures.histogram(
            values[kind], f"{kind} of a user turn", "user turns", limits=(1, 6)
        )
        drawn[kind] = figures.svg(kind, figures.NARROW, draw)
    facts: dict[str, Any] = {}
    if data.vectors is not None:
        facts = _draw_vectors(data, data.vectors, drawn)
    return drawn, facts


def _draw_vectors(
    data: ReportData, vectors: NDArray[np.float32], drawn: dict[str, bytes]
) -> dict[str, Any]:
    """Adds the figures that need vectors to `drawn`, where there are enough of them; returns what
    their captions state.
    """
    distinct = distinct_rows(data.ledger)
    chosen = of(distinct, "selected")["id"]
    rows, fit = EmbeddingReader(vectors, len(vectors)).read(np.arange(len(vectors)))
    units = rows[fit]
    where = {id_: i for i, id_ in enumerate(np.asarray(data.vector_ids, dtype=object)[fit])}
    pool_ids, kept_ids = smallest(distinct["id"], SAMPLE_POOL), smallest(chosen, SAMPLE_KEPT)
    pool = units[[where[id_] for id_ in pool_ids if id_ in where]]
    kept = units[[where[id_] for id_ in kept_ids if id_ in where]]
    nearest = nearest_similarities(kept, SAMPLE_NEAREST)
    rejected = of(distinct, "too_similar")["similarity"].to_numpy()
    if by_cosine(data.manifest) and (len(nearest) or len(rejected)):
        draw = figures.similarities(rejected, nearest, limit_of(data.manifest))
        drawn["similarity"] = figures.svg("similarity", figures.WIDE, draw)
    plane = fit_plane(pool)
    if plane:
        totals = (distinct.num_rows, len(chosen))
        points, chosen_points = plane.place(pool), plane.place(kept[:SAMPLE_MAP])
        drawn["map"] = figures.svg(
            "map",
            figures.map_size(points),
            figures.scatter(points, chosen_points, totals, plane.explained),
        )
    return {
        "nearest": len(nearest),
        "among": len(kept),
        "all_kept": len(chosen),
        "explained": sum(plane.explained) if plane else 0.0,
    }


def measures(data: ReportData) -> dict[str, Split]:
    """By name: values over the pool's distinct rows (or their user turns) and over the selected
    ones; rows without a value are left out.
    """
    distinct = distinct_rows(data.ledger)
    chosen = of(distinct, "selected")

    def split(pool: pa.ChunkedArray, selected: pa.ChunkedArray) -> Split:
        return Split(pool.drop_null().to_numpy(), selected.drop_null().to_numpy())

    found = {"evol score": split(distinct["evol_score"], chosen["evol_score"])}
    for kind in ("complexity", "quality"):
        found[kind] = split(pc.list_flatten(distinct[kind]), pc.list_flatten(chosen[kind]))
    for name, column in (("words", "n_words"), ("user turns", "n_pairs")):
        looked_up = [
            data.shapes[column].take(pc.index_in(rows["id"], value_set=data.shapes["id"]))
            for rows in (distinct, chosen)
        ]
        found[name] = split(*looked_up)
    return found


def summary_table(values: Mapping[str, Split]) -> list[tuple[str, list[str]]]:
    """For each measure the mean and median, of the pool and of the selection."""

    def shown(numbers: NDArray[Any]) -> list[str]:
        if not len(numbers):
            return ["–", "–"]
        return [
            f"{number:,.2f}" if number < 100 else f"{number:,.0f}"
            for number in (numbers.mean(dtype=np.float64), np.median(numbers))
        ]

    return [(name, shown(split.pool) + shown(split.selected)) for name, split in values.items()]


def reach(ledger: pa.Table, manifest: Manifest) -> dict[str, int] | None:
    """How far down the ranking the selection went; None where it did not go from the top down."""
    ranked = distinct_rows(ledger).filter(pc.is_valid(pc.field("rank")))
    last = pc.max(of(ranked, "selected")["rank"]).as_py()
    if last is None:
        return None
    upper = ranked.filter(pc.field("rank") <= last)
    if of(upper, "below_budget").num_rows:
        return None
    budget = (manifest.fingerprints.get("selection") or {}).get("budget")
    return {
        "last": last,
        "ranked": ranked.num_rows,
        "too_similar": of(upper, "too_similar").num_rows,
        "budget": budget or 0,
    }


def limit_of(manifest: Manifest) -> float | None:
    """The largest similarity allowed, or the least distance; None for a strategy that has no such
    limit.
    """
    options = manifest.fingerprints.get("selection") or {}
    limit = (
        options.get("max_similarity")
        if measure_of(manifest) == "similarity"
        else options["min_distance"]
    )
    return None if limit is None else float(limit)


def measure_of(manifest: Manifest) -> str:
    """What the limit is one of: similarity or distance."""
    return (
        "similarity"
        if (manifest.fingerprints.get("selection") or {}).get("min_distance") is None
        else "distance"
    )


def by_cosine(manifest: Manifest) -> bool:
    """Whether what the strategy compares by is the cosine similarity that the figures show."""
    return bool((manifest.fingerprints.get("selection") or {}).get("metric", "cosine") == "cosine")


def distinct_rows(ledger: pa.Table) -> pa.Table:
    """The rows that took part: neither quarantined nor a duplicate."""
    return ledger.filter(~pc.field("decision").isin(["quarantined", "duplicate"]))


def of(ledger: pa.Table, decision: str) -> pa.Table:
    """The rows with this decision."""
    return ledger.filter(pc.field("decision") == decision)


def smallest(ids: pa.ChunkedArray, most: int) -> list[str]:
    """The `most` smallest of `ids`, ascending."""
    sample: list[str] = ids.take(smallest_ids(ids, most)).to_pylist()
    return sample
