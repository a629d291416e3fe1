"""A store made by hand, without Prefect: pools, parts and selections of numbered rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deita_tasks import storage
from deita_tasks.artifacts.garbage import find_garbage
from deita_tasks.artifacts.part_tables import score_table, vector_table
from deita_tasks.artifacts.parts import PartSet, StageParts, ids_digest
from deita_tasks.artifacts.pool import Pool, pool_uri
from deita_tasks.artifacts.pool_writer import write_pool
from deita_tasks.artifacts.selection import write_selection
from deita_tasks.artifacts.verify import verify
from deita_tasks.conversations import Conversation, Quarantined, SourceRow, Turn
from deita_tasks.manifest import InputFile
from deita_tasks.records import ModelOutput

FOLDERS = {
    "complexity": "scores/complexity",
    "quality": "scores/quality",
    "embedding": "embeddings",
}


def conversations(*numbers: int) -> list[Conversation]:
    return [
        Conversation(
            (Turn("user", f"question {number}"), Turn("assistant", "answer " * number)),
            SourceRow("pool.jsonl", number),
        )
        for number in numbers
    ]


def with_other_parts(row: Conversation) -> Conversation:
    """Another conversation with the same text: turn fields, tools and an image are added."""
    fields = {"name": "Ann", "reasoning": "hm", "weight": 0}
    turns = tuple(replace(turn, fields=fields) for turn in row.turns)
    return Conversation(turns, row.source, {**row.extra, "image": "a.png"}, [{"name": "f"}])


def make_pool(store: str, *numbers: int) -> Pool:
    """Write a pool of these rows, as often as they are named, and a bad one."""
    uri = pool_uri(store, storage.digest_of(numbers))
    bad = Quarantined(SourceRow("pool.jsonl", 99), "malformed_row", "not JSON", "{")
    file = InputFile(uri="pool.jsonl", digest="", rows=len(numbers) + 1, format="messages")
    write_pool(uri, [*conversations(*numbers), bad], [file])
    return Pool.open(uri)


def part_set(store: str, stage: str, **options: str) -> PartSet:
    fingerprint = {"backend": "by_hand", "stage": stage, **options}
    return PartSet.create(store, FOLDERS[stage], fingerprint)


def add_part(store: str, stage: str, *numbers: int, **options: str) -> str:
    """Write a part in which row n scores 1 + n/100, or has the vector (1, n); return its URI."""
    parts = part_set(store, stage, **options)
    ids = [conversation.id for conversation in conversations(*numbers)]
    truncated = np.zeros(len(numbers), np.int32)
    if stage == "embedding":
        vectors = np.array([[1, number] for number in numbers], np.float32)
        table = vector_table(ids, ModelOutput(vectors, truncated))
    else:
        scores = np.array([1 + number / 100 for number in numbers], np.float32)
        table = score_table(ids, [1] * len(ids), ModelOutput(scores, truncated))
    return parts.part(parts.write(ids_digest(table["id"]), [table]))


def make_selection(store: str, pool: Pool, budget: int = 2) -> str:
    """Select from all parts there are; return the selection's URI."""
    stage_parts = {}
    for stage in FOLDERS:
        parts = part_set(store, stage)
        stage_parts[stage] = StageParts(part_set=parts, digests=parts.digests())
    uri = storage.join(store, "selections", storage.digest_of([pool.digest, budget]))
    options = {"budget": budget, "max_similarity": 0.9999}
    write_selection(uri, pool, stage_parts, {"name": "diverse", "options": options})
    return uri


def make_store(store: str) -> str:
    """Make pool and selection of rows 1 to 4, in two parts a stage; return the selection's URI."""
    pool = make_pool(store, 1, 2, 3, 4)
    for stage in FOLDERS:
        add_part(store, stage, 1, 2)
        add_part(store, stage, 3, 4)
    return make_selection(store, pool)


def file_names(store: str) -> set[str]:
    return {file.name for file in storage.find(store)}


def problems(store: str) -> dict[str, str]:
    """What `verify` complains of, by file or folder."""
    return {check.name: check.problem for check in verify(store) if check.problem}


def garbage_names(store: str, **options: object) -> set[str]:
    return {file.name for file in find_garbage(store, **options)}  # type: ignore[arg-type]
