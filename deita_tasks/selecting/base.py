"""The base class of selection strategies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from deita_tasks.components import Component, Fingerprint
from deita_tasks.errors import UsageError
from deita_tasks.presets import EVERY_ROW, IFD_BELOW
from deita_tasks.records import SCORE_KINDS, SelectorResult
from deita_tasks.selecting.arrays import Array
from deita_tasks.selecting.evol import Ranking, TurnAggregation
from deita_tasks.selecting.expression import EVOL, LENGTH, Expression, parse_expression
from deita_tasks.selecting.mix import limit_each, parse_mix, share_evenly
from deita_tasks.selecting.ranked_pool import RankedPool
from deita_tasks.selecting.reference import Reference, ReferenceKind
from deita_tasks.selecting.strata import Sizes, Strata


class Selector(Component):
    """Base class of selection strategies.

    A strategy is one class in its own file, and one line in `SELECTORS`:

        class EveryNth(Selector):
            "Every n-th row of the ranking."

            needs_embeddings: ClassVar[bool] = False

            n: int = Field(default=2, ge=1)

            def select(self, ids, evol_scores, embeddings=None, strata=None):
                pool = self.rank_pool(ids, evol_scores, strata)
                ranks = np.arange(0, pool.candidate_count, self.n)
                pool.keep(pool.drop_full_strata(ranks)[: self.budget])
                return pool.result()

    The fields of the class are the options of the strategy; pydantic checks them. Every strategy
    keeps at most `budget` rows and decides every id exactly once. It depends neither on the order
    of the input nor on the machine. A row that cannot be compared is "unscorable"; no score or
    vector is imputed. tests/selecting/test_contract.py checks all of this for every strategy.

    Some options tell the caller what to pass to `select`. `ranking` and `evol_score` name the
    scores, which `evol.ranking_scores` computes; `rank_by`, an expression of scores (see
    expression.py), takes their place, and a row is unscorable unless its IFD is below `ifd_below`
    in every turn, if the expression names it. `strata` names the column whose values are the
    strata; at most `per_stratum` rows of each stratum are kept. Instead of both, `mix` says how the
    budget is divided (see mix.py), or `clusters` is a number of clusters (see clusters.py), which
    get equal shares, or at most `per_stratum` rows each.
    """

    needs_embeddings: ClassVar[bool] = True
    # Whether it takes rows from the best score down and stops: then it looks at no row beyond, and
    # those need no scores.
    stops_at_budget: ClassVar[bool] = False
    # What it compares rows with that is no row of the pool; None for nothing.
    reference_kind: ClassVar[ReferenceKind | None] = None

    budget: int = Field(ge=1)
    ranking: Ranking = "evol"
    rank_by: str | None = None
    ifd_below: float | None = Field(default=None, gt=0)
    evol_score: TurnAggregation = "sum"
    strata: str | None = None
    per_stratum: int | None = Field(default=None, ge=1)
    mix: str | None = None
    clusters: int | None = Field(default=None, ge=1)

    _reference: Reference | None = PrivateAttr(None)

    @field_validator("rank_by")
    @classmethod
    def _check_expression(cls, text: str | None) -> str | None:
        """Return the expression in one spelling; None for the evol score, which needs none."""
        if text is None:
            return None
        expression = parse_expression(text).text
        return None if expression in EVOL else expression

    @model_validator(mode="after")
    def _check_ranking(self) -> Self:
        """Return the strategy unchanged. Raises UsageError for options of the ranking that clash.

        `rank_by` replaces `ranking`, and a limit of the ifd needs rows that have an ifd.
        """
        if self.rank_by is not None and self.ranking != "evol":
            raise UsageError(
                f"rank_by = {self.rank_by!r} with the ranking {self.ranking!r}: expected only one "
                "of them"
            )
        if self.ifd_below is not None and "ifd" not in self.score_names:
            raise UsageError(
                f"ifd_below = {self.ifd_below:g}: expected ifd in rank_by, which is "
                f"{self.rank_by or EVOL[0]!r}"
            )
        return self

    @model_validator(mode="after")
    def _check_strata(self) -> Selector:
        """Return the strategy unchanged. Raises ValueError if the budget is divided in two ways.

        The amounts of a mix are checked against the budget here only if they are rows; tokens are
        counted later.
        """
        given = {"strata": self.strata, "mix": self.mix, "clusters": self.clusters}
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)}: expected only one of them")
        if self.mix is not None:
            mix = parse_mix(self.mix)
            if self.budget != EVERY_ROW:  # else it divides tokens
                mix.check(self.budget)
            if self.per_stratum is not None:
                raise ValueError("per_stratum and mix: expected only one of them")
        return self

    @abstractmethod
    def select(
        self,
        ids: Sequence[str],
        evol_scores: Array,
        embeddings: Array | None,
        strata: Sequence[Hashable] | Strata | None = None,
    ) -> SelectorResult:
        """Return the kept ids in the order chosen, and a Rejection for every other id.

        `ids`: n distinct ids, in any order. `evol_scores`: (n,), the scores named by `ranking`; NaN
        for a row without one. `embeddings`: (n, d), float32 or float16; row i belongs to ids[i]. It
        need not be normalised and may be a memory map, or None if `needs_embeddings` is False.
        `strata`: (n,), the stratum of each row, or a Strata; needed only with `per_stratum`, `mix`
        or `clusters`. Once a stratum is full, its other rows are "stratum_full".

        Raises UsageError if ids repeat, or if scores, vectors or strata are missing or differ in
        number from the ids.
        """

    def with_reference(self, reference: Reference) -> Self:
        """Return a copy of the strategy with what it compares rows with."""
        strategy = self.model_copy()
        strategy._reference = reference
        return strategy

    @property
    def reference(self) -> Reference:
        """What it compares rows with. Raises UsageError without it."""
        if self._reference is None:
            raise UsageError(
                f"{type(self).__name__} compares rows with a reference: expected with_reference"
            )
        return self._reference

    def check_width(self, arrived: int, expected: int) -> None:
        """Raise UsageError unless vectors of a reference are as wide as those of the pool."""
        if arrived != expected:
            raise UsageError(
                f"reference vectors of {arrived} dimensions, where the pool's have {expected}; "
                "expected those of the same embedder"
            )

    @property
    def expression(self) -> Expression | None:
        """What it ranks by; None for `ranking`. Raises UsageError for a `rank_by` that is none."""
        return None if self.rank_by is None else parse_expression(self.rank_by)

    @property
    def score_names(self) -> list[str]:
        """The scores that a row needs. The length is not one: it is counted, not scored."""
        if self.expression is None:
            return list(SCORE_KINDS)
        return [name for name in self.expression.names if name != LENGTH]

    @property
    def ifd_limit(self) -> float | None:
        """What every IFD of a row has to be below; None if it does not rank by the IFD."""
        if "ifd" not in self.score_names:
            return None
        return IFD_BELOW if self.ifd_below is None else self.ifd_below

    @property
    def has_strata(self) -> bool:
        """Whether the number of rows to keep of a stratum is limited."""
        return not (self.per_stratum is None and self.mix is None and self.clusters is None)

    @property
    def needs_vectors(self) -> bool:
        """Whether it needs embeddings, be it only for its strata."""
        return self.needs_embeddings or self.clusters is not None

    @property
    def strata_column(self) -> str | None:
        """The column whose values are the strata; None for clusters, or without strata."""
        return parse_mix(self.mix).column if self.mix is not None else self.strata

    @property
    def divides_budget(self) -> bool:
        """Whether strata get parts of the budget, and not a number of rows each."""
        return self.mix is not None or (self.clusters is not None and self.per_stratum is None)

    def divide(self, labels: Sequence[Hashable], sizes: Sizes | None = None) -> Strata:
        """Return the strata of n rows by their labels, with the rows to keep of each.

        sizes: with a budget in tokens, which strata divide instead of that in rows.
        """
        if self.mix is not None:
            return parse_mix(self.mix).divide([str(label) for label in labels], self.budget, sizes)
        if self.per_stratum is not None:
            return limit_each(labels, self.per_stratum)
        return share_evenly(labels, self.budget, sizes)

    def rank_pool(
        self, ids: Sequence[str], evol_scores: Array, strata: Sequence[Hashable] | Strata | None
    ) -> RankedPool:
        """Return the rows in the order of their scores, all of them still undecided.

        strata: (n,), labels or Strata. Raises UsageError if they are needed and do not have n rows.
        """
        if not self.has_strata:
            return RankedPool(ids, evol_scores)
        rows = 0 if strata is None else len(strata)
        if strata is None or rows != len(ids):
            arrived = "no strata" if strata is None else f"{rows} strata"
            raise UsageError(
                f"{arrived} for {len(ids)} ids: per_stratum needs the stratum of each id"
            )
        if not isinstance(strata, Strata):
            strata = self.divide(strata)
        return RankedPool(ids, evol_scores, strata, self.budget)

    def fingerprint(self) -> Fingerprint:
        """Return the strategy and every option that changes which rows are kept."""
        options = self.model_dump()
        for name in ("mix", "clusters", "rank_by"):  # which earlier versions did not have
            if options[name] is None:
                del options[name]
        del options["ifd_below"]
        if self.ifd_limit is not None:
            options["ifd_below"] = self.ifd_limit
        return {"strategy": type(self).__name__, **options}
