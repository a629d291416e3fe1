"""Requests and tokens of a run before it asks for anything; replies in the store are free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import NonNegativeInt

from deita_tasks.config import Requests
from deita_tasks.evolving.chains import Seed, first_text
from deita_tasks.evolving.checks import MOST_ADDED
from deita_tasks.evolving.replies import estimate_tokens
from deita_tasks.evolving.roles import Roles
from deita_tasks.evolving.templates import Templates
from deita_tasks.strict_json import JsonRecord

# Tokens that a rewrite adds: 15 words of an instruction (the prompt asks for 10 to 20), and a sixth
# of what the checks allow for a response.
TOKENS_PER_WORD = 1.4
ADDED_WORDS = {"complexity": 15, "quality": MOST_ADDED["quality"] // 6}
LINE_TOKENS = 8  # of one score in the judge's reply


class RoleEstimate(JsonRecord):
    """What a model is expected to be asked for, without repeated requests."""

    role: str
    model: str
    requests: NonNegativeInt
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    requests_per_minute: int | None
    tokens_per_minute: int | None

    @property
    def tokens(self) -> int:
        """All tokens, which a cap counts."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def minutes(self) -> float | None:
        """The least minutes that the limits per minute allow; None without limits."""
        shares = [
            used / limit
            for used, limit in (
                (self.requests, self.requests_per_minute),
                (self.tokens, self.tokens_per_minute),
            )
            if limit is not None
        ]
        return max(shares, default=None)

    def __str__(self) -> str:
        limits = "" if self.minutes is None else f", at least {self.minutes:,.1f} minutes"
        return (
            f"{self.role}, {self.model}: {self.requests:,} requests, about "
            f"{self.prompt_tokens:,} tokens in and {self.completion_tokens:,} out{limits}"
        )


class RoundTokens(NamedTuple):
    """Requests and tokens of the rewrites and of the judgements of all chains."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def estimate_rounds(
    seeds: Sequence[Seed], templates: Templates, rounds: int
) -> tuple[RoundTokens, RoundTokens]:
    """Return what rewriting and judging is expected to take: every chain with all its rounds."""
    kind = templates.kind
    added = round(ADDED_WORDS[kind] * TOKENS_PER_WORD)
    frame = max(_tokens(text) for text in templates.rewrite.values())
    judge_frame = _tokens(templates.judge)
    read = written = judged = 0
    for seed in seeds:
        beside = 0 if kind == "complexity" else _tokens(seed.instruction)
        lengths = [_tokens(first_text(kind, seed)) + turn * added for turn in range(rounds + 1)]
        read += sum(frame + beside + length for length in lengths[:-1])
        written += sum(lengths[1:])
        judged += judge_frame + beside + sum(lengths)
    chains = len(seeds)
    return (
        RoundTokens(chains * rounds, read, written),
        RoundTokens(chains, judged, chains * (rounds + 1) * LINE_TOKENS),
    )


def estimate_roles(
    seeds: Sequence[Seed], templates: Templates, rounds: int, roles: Roles, requests: Requests
) -> list[RoleEstimate]:
    """Return what both models are expected to be asked for, the one that rewrites first."""
    names = ("rewrite", "judge")
    estimates = []
    for role, options, needed in zip(
        names, roles, estimate_rounds(seeds, templates, rounds), strict=True
    ):
        estimate = RoleEstimate(
            role=role,
            model=options.model,
            requests_per_minute=requests.requests_per_minute,
            tokens_per_minute=requests.tokens_per_minute,
            **needed._asdict(),
        )
        estimates.append(estimate)
    return estimates


def _tokens(text: str) -> int:
    """Return the tokens of one text, about; see `estimate_tokens`."""
    return estimate_tokens([{"content": text}])
