"""The judged chains as training data: which are held out, and both forms of the rows.

`scorer_data.parquet` has a row for every judged text. `released.jsonl` has the form that the
original's training script reads: conversations of the scorer's prompt and a digit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from deita_tasks.errors import InputError
from deita_tasks.evolving.chains import Chain
from deita_tasks.evolving.seeds import draw_key
from deita_tasks.scoring.prompts import render
from deita_tasks.strict_json import JsonRecord

FEWEST_CHAINS = 2  # judged ones: to train on, and to hold out
SCHEMA = pa.schema(
    {
        "chain": pa.string(),
        "round": pa.int32(),
        "method": pa.string(),
        "stratum": pa.string(),
        "instruction": pa.string(),
        "response": pa.string(),
        "score": pa.int32(),
        "split": pa.string(),
        "rewrite_prompts": pa.string(),
        "judge_prompt": pa.string(),
        "rewrite_model": pa.string(),
        "judge_model": pa.string(),
        "licence": pa.string(),
    }
)


class DataFacts(JsonRecord):
    """What all rows of a data set share: fingerprints of both prompts, models and licence."""

    rewrite_prompts: str
    judge_prompt: str
    rewrite_model: str
    judge_model: str
    licence: str


class ChainSet(JsonRecord):
    """All chains of a run, judged or not."""

    chains: list[Chain]
    facts: DataFacts

    @property
    def judged(self) -> list[Chain]:
        """The chains whose every text has a score."""
        return [chain for chain in self.chains if chain.is_judged]


def hold_out(chains: Sequence[Chain], share: float, random_seed: int) -> set[str]:
    """Return the ids of the chains to hold out: about `share` of them, at least one.

    All chains of an instruction, so that no text in training is a rewrite of one that is measured,
    or answers the same. Raises InputError if there are too few to do both.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for chain in chains:
        groups[chain.instruction].append(chain.id)
    if len(groups) < FEWEST_CHAINS:
        raise InputError(
            f"{len(chains)} chains are judged, of {len(groups)} instructions; expected at least "
            f"{FEWEST_CHAINS} instructions, to train on and to measure with"
        )
    drawn = sorted(groups, key=lambda text: draw_key(text, random_seed))
    held_out: set[str] = set()
    for text in drawn[:-1]:
        held_out.update(groups[text])
        if len(held_out) >= round(share * len(chains)):
            break
    return held_out


def data_table(chains: Sequence[Chain], held_out: set[str], facts: DataFacts) -> pa.Table:
    """Return a row (SCHEMA) for every text of the judged chains, in the order of chains and rounds.

    held_out: ids of chains. The facts repeat in every row, so that a row tells its origin alone.
    """
    rows = [
        {
            "chain": chain.id,
            "round": variant.round,
            "method": variant.method,
            "stratum": chain.stratum,
            "instruction": chain.pair(variant)[0],
            "response": chain.pair(variant)[1],
            "score": variant.score,
            "split": "held_out" if chain.id in held_out else "train",
            **facts.to_dict(),
        }
        for chain in chains
        for variant in chain.variants
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def released_rows(chains: Sequence[Chain]) -> list[dict[str, object]]:
    """Return the texts as conversations of the scorer's prompt and the digit, held-out ones too.

    The id is that of the chain and the round, so it is distinct.
    """
    return [
        {
            "id": f"{chain.id}-{variant.round}",
            "conversations": [
                {"from": "human", "value": render(chain.kind, *chain.pair(variant)).text},
                {"from": "gpt", "value": str(variant.score)},
            ],
        }
        for chain in chains
        for variant in chain.variants
    ]
