"""A budget in tokens: a selection ends before the first row that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

from deita_tasks.artifacts.candidates import Candidates
from deita_tasks.errors import TooFewRows
from deita_tasks.records import SelectorResult
from deita_tasks.selecting.arrays import Indices
from deita_tasks.selecting.base import Selector
from deita_tasks.selecting.strata import Sizes, Strata


@dataclass(frozen=True)
class TokenBudget:
    """The most tokens that a selection may have. table: TOKENS of every candidate.

    The strategy keeps row after row. The selection ends before the first row with which it would
    exceed the budget; no later row that would still fit is taken in its place. So what a smaller
    budget selects, a larger one selects too, and each is the selection of some budget in rows.
    """

    limit: int
    table: pa.Table

    @cached_property
    def _tokens(self) -> tuple[pd.Index[str], Indices]:
        """The index of the ids, and the tokens of each: int64 (n,), 0 for a row without a count."""
        tokens = self.table["window_tokens"].fill_null(0).to_numpy().astype(np.int64)
        return pd.Index(self.table["id"].to_pandas()), tokens

    @cached_property
    def most_a_row(self) -> int:
        """The tokens of the longest candidate; at least 1, also without candidates."""
        _, tokens = self._tokens
        return int(tokens.max(initial=1))

    def tokens_of(self, ids: Sequence[str]) -> Indices:
        """Return the tokens of these rows: int64 (n,), 0 for one that was not counted.

        ids: of candidates, in any order.
        """
        index, tokens = self._tokens
        return np.asarray(tokens[index.get_indexer(pd.Index(ids, dtype=object))])

    def rows_within(self, kept: Sequence[str]) -> int:
        """Return how many of the kept rows, from the first on, fit."""
        used = np.cumsum(self.tokens_of(kept)) if len(kept) else np.zeros(0, np.int64)
        return int(np.searchsorted(used, self.limit, side="right"))

    def describe_end(self, kept: Sequence[str]) -> str:
        """Return why rows have no place beside the kept ones, if this budget ended them."""
        left = self.limit - int(self.tokens_of(kept).sum())
        return f"the next row does not fit the {left:,} tokens left of the budget of {self.limit:,}"

    def sizes_of(self, ids: Sequence[str]) -> Sizes:
        """Return the budget and the tokens of these rows, in the order of `ids`."""
        return Sizes(self.tokens_of(ids), self.limit)

    def select(
        self, candidates: Candidates, strategy: Selector, strata: Strata | None = None
    ) -> SelectorResult:
        """Return what `strategy` selects within this budget and its own.

        strata: of the candidates; if they divide this budget, each ends before its own first row
        that does not fit (see `TokenPlaces`). Raises TooFewRows if not even the first row fits.
        """
        if strata is not None and strata.sizes is not None:
            result = candidates.select(strategy, strata)
            if not result.kept and len(strata):
                raise TooFewRows(
                    f"budget_tokens = {self.limit:,}: no stratum has room for its first row; "
                    "expected a larger budget, or fewer strata"
                )
            return result
        while True:
            result = candidates.select(strategy, strata)
            rows = self.rows_within(result.kept)
            if rows == len(result.kept):
                return result
            if not rows:
                first = int(self.tokens_of(result.kept[:1])[0])
                raise TooFewRows(
                    f"budget_tokens = {self.limit:,}: the first row that would be selected has "
                    f"{first:,} tokens; expected a budget of at least that"
                )
            strategy = strategy.model_copy(update={"budget": rows})
