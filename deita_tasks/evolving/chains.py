"""A seed, its rewrites, and the scores that the judge gives them."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field, NonNegativeInt

from deita_tasks.records import ScoreKind
from deita_tasks.strict_json import JsonRecord

SEED_METHOD = "seed"  # in place of a method, for the text that a chain begins with


class Seed(NamedTuple):
    """The pair that a chain begins with. id: of its conversation. stratum: where it was drawn."""

    id: str
    instruction: str
    response: str
    stratum: str = ""


class Variant(JsonRecord):
    """A text of a chain. method: how it was rewritten. score: the judge's, None before."""

    round: NonNegativeInt
    method: str
    text: str
    score: int | None = Field(None, ge=1, le=6)


class Chain(JsonRecord):
    """A seed and its rewrites, in the order of the rounds.

    ended: why the chain has fewer rounds than it might, None if it has all. problem: why the judge
    gave no scores, None if it did or was not asked.
    """

    id: str
    kind: ScoreKind
    stratum: str
    instruction: str
    variants: list[Variant] = Field(min_length=1)
    ended: str | None = None
    problem: str | None = None

    @property
    def is_judged(self) -> bool:
        """Whether every text has a score."""
        return all(variant.score is not None for variant in self.variants)

    def pair(self, variant: Variant) -> tuple[str, str]:
        """Return a variant as a scorer reads it: instruction and response.

        For complexity the variant is the instruction, and the response is empty.
        """
        if self.kind == "complexity":
            return variant.text, ""
        return self.instruction, variant.text


def first_text(kind: ScoreKind, seed: Seed) -> str:
    """Return the text of a seed that is rewritten: its instruction, for quality its response."""
    return seed.instruction if kind == "complexity" else seed.response
