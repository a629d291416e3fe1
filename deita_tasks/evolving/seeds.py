"""The conversations that chains begin with: the first pair of each, drawn evenly over strata."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from deita_tasks.conversations import Conversation
from deita_tasks.errors import InputError, UsageError
from deita_tasks.evolving.chains import Seed, first_text
from deita_tasks.records import ScoreKind

MOST_NAMES = 5  # of columns, in an error


def find_seeds(
    kind: ScoreKind, conversations: Iterable[Conversation], stratum_column: str | None
) -> list[Seed]:
    """Return the first pair of each conversation that has a text to rewrite, each text once.

    Complexity takes instructions without an answer too.

    Raises UsageError if a conversation has no such column, InputError if there are no seeds.
    """
    seeds: dict[str, Seed] = {}
    for conversation in conversations:
        pairs = conversation.pairs
        response = pairs[0].response if pairs else ""
        stratum = _stratum(conversation, stratum_column)
        seed = Seed(conversation.id, conversation.first_instruction, response, stratum)
        if first_text(kind, seed).strip() and seed.instruction.strip():
            # Of equal texts the smallest id, whatever the order of the input.
            digest = _text_digest(kind, seed)
            seeds[digest] = min(seed, seeds.get(digest, seed))
    if not seeds:
        raise InputError(
            f"no conversation has a text to begin with; expected "
            f"{'instructions' if kind == 'complexity' else 'instructions and responses'}"
        )
    return sorted(seeds.values(), key=lambda seed: seed.id)


def _stratum(conversation: Conversation, column: str | None) -> str:
    """Return a row's value of the column as text; "" without a column.

    Raises UsageError if the row does not have the column; a value of null is a stratum too.
    """
    if column is None:
        return ""
    if column not in conversation.extra:
        names = ", ".join(list(conversation.extra)[:MOST_NAMES]) or "no other columns"
        source = conversation.source
        raise UsageError(
            f"seed_strata = {column!r}: row {source.row} of {source.uri} has no such column; it "
            f"has {names}"
        )
    return str(conversation.extra[column])


def _text_digest(kind: ScoreKind, seed: Seed) -> str:
    """Return what two seeds with the same texts share, a hex SHA-256.

    Two seeds with one instruction are the same for complexity, whatever their responses are.
    """
    texts = [seed.instruction] if kind == "complexity" else [seed.instruction, seed.response]
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def draw_seeds(seeds: Sequence[Seed], count: int | None, random_seed: int) -> list[Seed]:
    """Return `count` seeds, as even over the strata as their sizes allow; all for None.

    Which ones depends on their ids and `random_seed`, not on the order of the input.
    """
    if count is None or count >= len(seeds):
        return list(seeds)
    by_stratum: dict[str, list[Seed]] = defaultdict(list)
    for seed in sorted(seeds, key=lambda seed: draw_key(seed.id, random_seed)):
        by_stratum[seed.stratum].append(seed)
    # The first of every stratum, then the second of every stratum, and so on.
    turns = [
        (turn, draw_key(stratum, random_seed), seed)
        for stratum, members in by_stratum.items()
        for turn, seed in enumerate(members)
    ]
    turns.sort(key=lambda entry: entry[:2])
    return sorted((seed for _, _, seed in turns[:count]), key=lambda seed: seed.id)


def draw_key(name: str, random_seed: int) -> str:
    """Return what orders names at random: the same order for the same seed, on every machine."""
    return hashlib.sha256(f"{random_seed} {name}".encode("utf-8", "surrogatepass")).hexdigest()
