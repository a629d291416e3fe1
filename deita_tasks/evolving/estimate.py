"""Requests and tokens of a run before it asks for anything, without replies in the store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from pydantic import NonNegativeInt

from deita_tasks.config import Requests
from deita_tasks.evolving.chains import Chain, Seed
from deita_tasks.evolving.checks import MOST_ADDED
from deita_tasks.evolving.evolve import evolve
from deita_tasks.evolving.judge import judge
from deita_tasks.evolving.replies import KeptReplies, NotKept, estimate_tokens
from deita_tasks.evolving.roles import Roles
from deita_tasks.evolving.templates import Templates
from deita_tasks.scoring.concurrent_map import concurrent_map
from deita_tasks.strict_json import JsonRecord

# Tokens that a rewrite adds: 15 words of an instruction (the prompt asks for 10 to 20), and a sixth
# of what the checks allow for a response.
TOKENS_PER_WORD = 1.4
ADDED_WORDS = {"complexity": 15, "quality": MOST_ADDED["quality"] // 6}
LINE_TOKENS = 8  # of one score in the judge's reply


class RoleEstimate(JsonRecord):
    """What a model is expected to be asked for, without repeated requests.

    kept: rewrites or judgements that the store has; they are not among the requests.
    """

    role: str
    model: str
    requests: NonNegativeInt
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    kept: NonNegativeInt
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
            f"{self.prompt_tokens:,} tokens in and {self.completion_tokens:,} out{limits}; the "
            f"store has {self.kept:,} more"
        )


class WorkLeft(NamedTuple):
    """Requests and tokens that chains still take of a model."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def read_kept(
    seeds: Sequence[Seed],
    templates: Templates,
    rounds: int,
    roles: Roles,
    store: str,
    random_seed: int,
) -> list[Chain]:
    """Return the chains as far as the store's replies go; asks for nothing."""
    rewriter, judge_model = (KeptReplies(options, store) for options in roles)

    def read(seed: Seed) -> Chain:
        chain = evolve(seed, templates, rewriter.ask, random_seed, rounds)
        if rewrites_left(chain, rounds):
            return chain
        with suppress(NotKept):
            return judge(chain, templates, judge_model.ask, random_seed)
        return chain

    chains = dict(concurrent_map(read, seeds, roles.rewriter.concurrency))
    return [chains[place] for place in range(len(seeds))]


def rewrites_left(chain: Chain, rounds: int) -> int:
    """Return the rounds that a chain still has to go."""
    return 0 if chain.ended is not None else rounds + 1 - len(chain.variants)


def estimate_rewrites(chains: Sequence[Chain], templates: Templates, rounds: int) -> WorkLeft:
    """Return what the rounds are expected to take that chains have not: as if none ends early."""
    frame = max(_tokens(text) for text in templates.rewrite.values())
    requests = read = written = 0
    for chain in chains:
        left = rewrites_left(chain, rounds)
        lengths = _lengths(chain, left)[-left - 1 :]
        requests += left
        read += sum(frame + _tokens_beside(chain) + length for length in lengths[:-1])
        written += sum(lengths[1:])
    return WorkLeft(requests, read, written)


def estimate_judgements(chains: Sequence[Chain], templates: Templates, rounds: int) -> WorkLeft:
    """Return what the judgements are expected to take that chains have not."""
    frame = _tokens(templates.judge)
    requests = read = written = 0
    for chain in chains:
        left = rewrites_left(chain, rounds)
        if not left and (chain.is_judged or chain.problem):
            continue
        lengths = _lengths(chain, left)
        requests += 1
        read += frame + _tokens_beside(chain) + sum(lengths)
        written += len(lengths) * LINE_TOKENS
    return WorkLeft(requests, read, written)


def _lengths(chain: Chain, left: int) -> list[int]:
    """Return the tokens of a chain's texts, with `left` that are expected."""
    added = round(ADDED_WORDS[chain.kind] * TOKENS_PER_WORD)
    known = [_tokens(variant.text) for variant in chain.variants]
    return [*known, *(known[-1] + turn * added for turn in range(1, left + 1))]


def _tokens_beside(chain: Chain) -> int:
    """Return the tokens of what stands beside each text: nothing, or the instruction."""
    return 0 if chain.kind == "complexity" else _tokens(chain.instruction)


def estimate_roles(
    chains: Sequence[Chain], templates: Templates, rounds: int, roles: Roles, requests: Requests
) -> list[RoleEstimate]:
    """Return what both models are expected to be asked for, the one that rewrites first.

    chains: as far as the store has them (`read_kept`).
    """
    rewriting = estimate_rewrites(chains, templates, rounds)
    judging = estimate_judgements(chains, templates, rounds)
    rewritten = sum(len(chain.variants) - 1 for chain in chains)
    estimates = []
    for role, options, left, kept in (
        ("rewrite", roles.rewriter, rewriting, rewritten),
        ("judge", roles.judge, judging, len(chains) - judging.requests),
    ):
        estimate = RoleEstimate(
            role=role,
            model=options.model,
            kept=kept,
            requests_per_minute=requests.requests_per_minute,
            tokens_per_minute=requests.tokens_per_minute,
            **left._asdict(),
        )
        estimates.append(estimate)
    return estimates


def _tokens(text: str) -> int:
    """Return the tokens of one text, about; see `estimate_tokens`."""
    return estimate_tokens([{"content": text}])
