"""Embed the texts that rows are compared with: targets, tags, or evaluation rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefect import task
from pydantic import JsonValue

from deita_tasks import storage
from deita_tasks.artifacts.pool import Pool
from deita_tasks.artifacts.references import (
    ReferenceSummary,
    ReferenceText,
    is_reference,
    read_tags,
    write_reference,
)
from deita_tasks.config import Advanced
from deita_tasks.conversations import Conversation, Quarantined, Turn
from deita_tasks.errors import EmptyFile, UsageError
from deita_tasks.findings import plural
from deita_tasks.loading.evaluation_rows import read_evaluation_rows
from deita_tasks.models.stopping import stopped_by
from deita_tasks.plan import Plan, ReferenceSource, pin_spec
from deita_tasks.presets import Spec
from deita_tasks.tasks.caching import CACHED, bind
from deita_tasks.tasks.model_cache import (
    ShardLimits,
    borrow_model,
    raise_if_run_ends,
    release_models,
)
from deita_tasks.tasks.runners import ShardRunner

log = logging.getLogger(__name__)

VERSION = 1  # increase it to embed every reference anew
MAX_NOTES = 3  # logged


@task(name="embed-reference", task_run_name="embed {title}", **CACHED)
def embed_reference(
    key: str,
    title: str,
    pool: str,
    files: Sequence[str],
    tags: str | None,
    spec: Spec,
    fingerprint: str,
    limits: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Embed the rows of `files`, or the tags of a pool; write the artifact `key`.

    Returns its reference.json.
    """
    notes: list[str] = []
    if tags is None:
        pairs = list(_read_rows(files, notes))
    else:
        pairs = list(_read_tags(Pool.open(pool), tags))
    texts = [text for text, _ in pairs]
    conversations = [conversation for _, conversation in pairs]
    with (
        stopped_by(raise_if_run_ends),
        borrow_model("embedder", spec, ShardLimits.model_validate(limits), fingerprint) as embedder,
    ):
        vectors = embedder.compute(conversations)
    return write_reference(key, texts, vectors, notes).to_dict()


def _read_rows(
    files: Sequence[str], notes: list[str]
) -> Iterator[tuple[ReferenceText, Conversation]]:
    """Yield each distinct row of each file; note the rows that cannot be read."""
    for uri in files:
        unread = 0
        seen: set[str] = set()
        for row in read_evaluation_rows(uri):
            if isinstance(row, Quarantined):
                unread += 1
                continue
            conversation = Conversation(tuple(row.turns), row.source)
            if conversation.id in seen:
                continue
            seen.add(conversation.id)
            text = "\n\n".join(turn.content for turn in row.turns)
            yield ReferenceText(conversation.id, text, uri, row.source.row), conversation
        if unread:
            notes.append(f"{uri}: {plural(unread, 'row')} could not be read or compared with")
        if not seen:
            raise EmptyFile(f"{uri}: no text to compare with; expected prompts or conversations")


def _read_tags(pool: Pool, column: str) -> Iterator[tuple[ReferenceText, Conversation]]:
    """Yield each distinct tag of a pool, as what a user says."""
    of_rows = read_tags(pool, column)
    tags = sorted({tag for tags in of_rows.values() for tag in tags})
    if not tags:
        raise UsageError(f"tags = {column!r}: no row has a tag; expected lists of texts")
    for tag in tags:
        yield ReferenceText(tag, tag), Conversation((Turn("user", tag),))


def make_reference(
    title: str, source: ReferenceSource, plan: Plan, pool: Pool, options: Advanced
) -> str:
    """Return where the vectors of `source` are; embeds only if the store does not have them.

    Logs the number of texts and the first notes on them. Needs a plan with a `text_embedder`.
    """
    embedder = plan.text_embedder
    assert embedder is not None  # a plan with a source has it
    uri = reference_uri(source, plan, pool.digest, options)
    bound: Any = bind(embed_reference, options).with_options(refresh_cache=not is_reference(uri))
    arguments = {
        "key": uri,
        "title": title,
        "pool": storage.absolute(pool.uri),
        "files": list(source.files),
        "tags": source.tags,
        "spec": pin_spec(plan.specs["embedding"], embedder, embedder.fingerprint()),
        "fingerprint": storage.digest_of(embedder.fingerprint()),
        "limits": ShardLimits.from_options(options).to_dict(),
    }
    try:
        with ShardRunner(options, [embedder]) as runner:
            fields = runner.call(bound, [embedder], arguments)
    finally:
        release_models()
    summary = ReferenceSummary.model_validate(fields)
    log.info("%s: %s to compare with", title, plural(summary.texts, "text"))
    for note in summary.notes[:MAX_NOTES]:
        log.warning("%s: %s", title, note)
    return uri


def reference_digest(source: ReferenceSource, plan: Plan, pool: str) -> str:
    """Return a digest of everything that the vectors of `source` depend on. pool: its digest."""
    assert plan.text_embedder is not None
    parts: dict[str, Any] = {"embedder": plan.text_embedder.fingerprint(), "version": VERSION}
    if source.tags is None:
        parts["files"] = source.contents
    else:
        parts |= {"pool": pool, "tags": source.tags}
    return storage.digest_of(parts)


def reference_uri(source: ReferenceSource, plan: Plan, pool: str, options: Advanced) -> str:
    """Return where the vectors of `source` are or will be. pool: its digest."""
    store = storage.absolute(options.store)
    return storage.join(store, "references", reference_digest(source, plan, pool))


def reference_digests(plan: Plan, pool: str) -> list[str]:
    """Return the digests of all references that a plan needs. pool: its digest."""
    sources = [*plan.references.values()]
    if plan.filters.similarity is not None:
        sources.append(plan.filters.similarity.source)
    return [reference_digest(source, plan, pool) for source in sources]
