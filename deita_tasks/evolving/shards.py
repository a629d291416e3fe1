"""The chains of a shard in the store.

<store>/chains/<digest>/chains.json, named by all that the chains depend on
"""

from __future__ import annotations

from collections.abc import Sequence

from deita_tasks import storage
from deita_tasks.errors import StorageError
from deita_tasks.evolving.chains import Chain, Seed
from deita_tasks.evolving.replies import ChatOptions
from deita_tasks.evolving.templates import Templates
from deita_tasks.strict_json import JsonRecord

CHAINS_FILE = "chains.json"
CHAINS_VERSION = 1  # raise it when the same replies would give other chains


class ChainShard(JsonRecord):
    """The file of a shard."""

    chains: list[Chain]


def shards_of(seeds: Sequence[Seed], size: int) -> list[Sequence[Seed]]:
    """Return the seeds in pieces of at most `size`, in their order; only the last is smaller."""
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def rewrite_digest(
    seeds: Sequence[Seed], templates: Templates, model: ChatOptions, rounds: int, random_seed: int
) -> str:
    """Return what names the chains of `seeds` before they are judged.

    It changes with all that the texts depend on: seeds, prompts, model, rounds and random seed.
    """
    parts = {
        "version": CHAINS_VERSION,
        "kind": templates.kind,
        "seeds": [list(seed) for seed in seeds],
        "templates": templates.rewrite_fingerprint,
        "model": model.identity(),
        "rounds": rounds,
        "random_seed": random_seed,
    }
    return storage.digest_of(parts)


def judge_digest(rewritten: str, templates: Templates, model: ChatOptions, random_seed: int) -> str:
    """Return what names the chains of the shard `rewritten` once they are judged."""
    parts = {
        "version": CHAINS_VERSION,
        "chains": rewritten,
        "template": templates.judge_fingerprint,
        "model": model.identity(),
        "random_seed": random_seed,
    }
    return storage.digest_of(parts)


def shard_uri(store: str, digest: str) -> str:
    """Return the folder of a shard: <store>/chains/<digest>."""
    return storage.join(store, "chains", digest)


def write_chains(uri: str, chains: Sequence[Chain]) -> None:
    """Write the chains of a shard in their order, whole or not at all."""
    storage.write_record(storage.join(uri, CHAINS_FILE), ChainShard(chains=list(chains)))


def read_chains(uri: str) -> list[Chain]:
    """Return the chains of a shard. Raises MissingFile or DamagedArtifact."""
    return storage.read_record(storage.join(uri, CHAINS_FILE), ChainShard).chains


def has_chains(uri: str) -> bool:
    """Return whether the chains of a shard are there, undamaged."""
    try:
        read_chains(uri)
    except StorageError:
        return False
    return True
