"""A chain of rewrites: each round rewrites the text of the round before by one method."""

from __future__ import annotations

import random

from deita_tasks.evolving.chains import SEED_METHOD, Chain, Seed, Variant, first_text
from deita_tasks.evolving.checks import rewrite_problem
from deita_tasks.evolving.replies import Ask, NotKept
from deita_tasks.evolving.templates import METHODS, Templates, fill, text_code
from deita_tasks.presets import REWRITE_ROUNDS
from deita_tasks.records import ScoreKind
from deita_tasks.scoring.http_client import Refused

REWRITE_ATTEMPTS = 3  # of one round, until its chain ends


class _NoRewrite(Exception):
    """No attempt at a round gave a rewrite. `str` says why."""


def evolve(
    seed: Seed, templates: Templates, ask: Ask, random_seed: int, rounds: int = REWRITE_ROUNDS
) -> Chain:
    """Return the chain of a seed; it ends early, and says so, where no rewrite passes the checks.

    Raises what `ChatModel.ask` raises, but for a refused request, which ends the chain. Of replies
    that are only read (`KeptReplies`), the chain has the rounds that the store has.
    """
    kind = templates.kind
    text = first_text(kind, seed)
    variants = [Variant(round=0, method=SEED_METHOD, text=text)]
    ended = None
    for number, method in enumerate(draw_methods(kind, seed.id, random_seed, rounds), 1):
        try:
            text = _rewrite(seed, templates, method, variants, ask)
        except _NoRewrite as error:
            ended = f"round {number}, {method}: {error}"
            break
        except NotKept:
            break
        variants.append(Variant(round=number, method=method, text=text))
    return Chain(
        id=seed.id,
        kind=kind,
        stratum=seed.stratum,
        instruction=seed.instruction,
        variants=variants,
        ended=ended,
    )


def draw_methods(kind: ScoreKind, chain: str, random_seed: int, rounds: int) -> list[str]:
    """Return the method of each round.

    Complexity: drawn anew each round. Quality: every method once, in a drawn order, then again.
    """
    dice = random.Random(f"{random_seed} {chain}")
    methods = list(METHODS[kind])
    if kind == "complexity":
        return dice.choices(methods, k=rounds)
    drawn: list[str] = []
    while len(drawn) < rounds:
        drawn += dice.sample(methods, len(methods))
    return drawn[:rounds]


def _rewrite(
    seed: Seed, templates: Templates, method: str, variants: list[Variant], ask: Ask
) -> str:
    """Return a rewrite of the last variant. Raises _NoRewrite with the last problem."""
    earlier = [variant.text for variant in variants]
    template = templates.rewrite[method]
    instruction = earlier[-1] if templates.kind == "complexity" else seed.instruction
    fields = {"instruction": instruction, "response": earlier[-1]}
    code = text_code(*fields.values())
    message = {"role": "user", "content": fill(template, {**fields, "code": code})}
    problem: str | None = None
    for attempt in range(REWRITE_ATTEMPTS):
        try:
            reply = ask([message], attempt)
        except Refused as error:
            raise _NoRewrite(str(error)) from None
        text = reply.text.strip()
        problem = "it is cut at the limit of tokens" if reply.is_cut else None
        problem = problem or rewrite_problem(templates.kind, text, earlier, template, code)
        if problem is None:
            return text
    raise _NoRewrite(problem)
