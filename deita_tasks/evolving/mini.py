"""A head of the scorer mini from judged chains, kept in the store by what it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import NonNegativeInt

from deita_tasks import storage
from deita_tasks.evolving.chains import Chain
from deita_tasks.records import ScoreKind
from deita_tasks.scoring.mini.head_file import head_file_name
from deita_tasks.strict_json import JsonRecord
from deita_tasks.training.judged import JudgedText, fit_mini, write_head

VERSION = 1  # raise it when the same texts would give another head


class MiniHead(JsonRecord):
    """A head in the store. address: of the texts that it was fitted to."""

    kind: ScoreKind
    address: str
    texts: NonNegativeInt

    def folder(self, store: str) -> str:
        """Return the head's folder, as the scorer mini takes it."""
        return storage.join(store, "heads", self.address)

    def is_fitted(self, store: str) -> bool:
        """Whether the store has the head."""
        return storage.exists(self.uri(store))

    def uri(self, store: str) -> str:
        """Return the head's file."""
        return storage.join(self.folder(store), head_file_name(self.kind))


def judged_texts(chains: Sequence[Chain]) -> list[JudgedText]:
    """Return the texts of judged chains, sorted: the order of the chains does not matter."""
    texts = [
        JudgedText(chain.id, *chain.pair(variant), variant.score or 0)
        for chain in chains
        for variant in chain.variants
    ]
    return sorted(texts)


def head_of(kind: ScoreKind, texts: Sequence[JudgedText]) -> MiniHead:
    """Return where the head of these texts lies in a store; fits nothing.

    The address is a digest of the texts and of the version, so the same texts are fitted once.
    """
    address = storage.digest_of([kind, VERSION, [list(text) for text in texts]])
    return MiniHead(kind=kind, address=address, texts=len(texts))


def fit_head(store: str, head: MiniHead, texts: Sequence[JudgedText]) -> None:
    """Fit a head and write its file to the store, whole or not at all."""
    fitted = fit_mini(texts, head.kind)
    with storage.scratch_folder() as scratch:
        write_head(Path(scratch), fitted, head.kind)
        content = Path(scratch, head_file_name(head.kind)).read_bytes()
    storage.write_bytes(head.uri(store), content)
