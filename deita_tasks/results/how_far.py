"""How far a row was from coming in, as far as the ledger alone can say it for certain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deita_tasks.decisions import LedgerRow
from deita_tasks.presets import COSINE_MAX

FROM_THE_TOP = ("Diverse", "TopScore")


def how_far(
    ledger: pa.Table, row: LedgerRow, selector: Mapping[str, Any], last: LedgerRow | None
) -> list[str]:
    """Return what would have let the row in, a sentence each; [] where nothing is certain.

    selector: the fingerprint of the strategy. last: the last row selected.
    """
    is_certain = (
        selector.get("strategy") in FROM_THE_TOP
        and selector.get("ranking") == "evol"
        and "budget_tokens" not in selector
    )
    if not is_certain:
        return []
    if row.decision == "below_budget" and row.reason is None and last is not None:
        return list(_from_the_budget(ledger, row, selector, last))
    if row.decision == "too_similar" and selector["strategy"] == "Diverse":
        return list(_from_the_limit(ledger, row, selector))
    return []


def _from_the_budget(
    ledger: pa.Table, row: LedgerRow, selector: Mapping[str, Any], last: LedgerRow
) -> Iterator[str]:
    """Say how far a row is below the end of the budget, and with which one it is not."""
    if last.evol_score is None or row.evol_upper is None or row.evol_lower is None:
        return
    gap = last.evol_score - row.evol_upper
    if gap >= 0:
        at_least = "" if row.evol_score is not None else "at least "
        name = selector.get("rank_by", "evol score")
        yield f"its {name} is {at_least}{gap:.2f} below that of the last one selected"
    if any(selector.get(name) is not None for name in ("per_stratum", "mix", "clusters")):
        return
    is_below = pc.field("decision") == "below_budget"
    is_other = pc.field("id") != row.id
    others = ledger.filter(is_below & is_other).combine_chunks()
    ids = others["id"].combine_chunks()
    certain = _rows_before(ids, others["evol_lower"], row.id or "", row.evol_upper)
    possible = _rows_before(ids, others["evol_upper"], row.id or "", row.evol_lower)
    budget = int(selector["budget"]) + possible + 1
    condition = "" if row.evol_score is not None else " if models can score it"
    if selector["strategy"] == "TopScore":
        latest = "" if certain == possible else " at the latest"
        yield f"it comes in with a budget of {budget:,}{latest}{condition}"
    else:
        yield (
            f"its turn comes with a budget of {budget:,} at the latest{condition}; it comes in "
            "then unless it is too similar to a row selected before it"
        )


def _rows_before(ids: pa.Array, scores: pa.ChunkedArray, id: str, score: float) -> int:
    """Return how many rows with these scores come before the row `id` with its score."""
    numbers = scores.to_numpy()
    is_tied = pa.array(numbers == score)
    tied = ids.filter(is_tied).to_pylist()
    better = int(np.count_nonzero(numbers > score))
    earlier_ids = [other for other in tied if other < id]
    return better + len(earlier_ids)


def _from_the_limit(ledger: pa.Table, row: LedgerRow, selector: Mapping[str, Any]) -> Iterator[str]:
    """Say with which limits the row comes in.

    Up to the row, another limit changes no decision unless it lets in an earlier row that is too
    similar. So the row comes in with every limit from its own similarity on, up to the smallest
    similarity of such a row.
    """
    is_distance = selector.get("min_distance") is not None
    limit = selector["min_distance" if is_distance else "max_similarity"]
    if row.similarity is None or limit is None or row.rank is None:
        return
    sign = -1 if is_distance else 1
    gap = abs(row.similarity - limit)
    measure, side = ("distance", "under") if is_distance else ("similarity", "above")
    yield f"its {measure} is {_digits(gap)} {side} the limit"
    is_rejected = pc.field("decision") == "too_similar"
    is_earlier = pc.field("rank") < row.rank
    earlier = ledger.filter(is_rejected & is_earlier)
    closeness = sign * earlier["similarity"].to_numpy()
    own = sign * row.similarity
    is_cosine = selector.get("metric", "cosine") == "cosine"
    if (closeness <= own).any() or (is_cosine and own > COSINE_MAX):
        return
    beyond = "less" if is_distance else "more"
    end = f" or {beyond}"
    if len(closeness):
        bound = sign * closeness.min()
        end = f", as long as it is {'above' if is_distance else 'below'} {_exact(bound)}"
    yield f"it comes in with a limit of {_exact(row.similarity)}{end}"


def _digits(value: float) -> str:
    """Return a small difference with two digits that count."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _exact(similarity: float) -> str:
    """Return the shortest number that is this float32."""
    return str(np.float32(similarity))
