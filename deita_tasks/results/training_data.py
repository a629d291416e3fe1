"""Find what to train on: a selection, the latest version of `reselect`, or other files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from deita_tasks import storage
from deita_tasks.conversations import Conversation, Quarantined, parse_tools
from deita_tasks.errors import EmptyFile, StorageError
from deita_tasks.filtering.decontamination import EvaluationTexts
from deita_tasks.finetuning.examples import ChatRow, LeftOut
from deita_tasks.loading import find_pool, load_layouts, open_unless_empty
from deita_tasks.manifest import MANIFEST, InputFile
from deita_tasks.models.chat import chat_turns
from deita_tasks.results import versions
from deita_tasks.results.reading import checked_output, read_earlier_manifest
from deita_tasks.strict_json import JsonRecord

BLOCK_ROWS = 1024  # compared with the evaluation texts at a time
CONTAMINATED = "it repeats a text of the evaluation files"


class SelectionParent(JsonRecord):
    """The selection that data come from. manifest_sha256: of its manifest.json."""

    uri: str
    version: str | None
    pool: str
    selector: str
    manifest_sha256: str


@dataclass
class FoundData:
    """The files of a training set.

    parents: the selections that they are of. inputs: filled in as the rows are read. evaluation:
    texts that no row may repeat.
    """

    files: list[str]
    format: str
    parents: list[SelectionParent]
    inputs: list[InputFile] = field(default_factory=list)
    evaluation: EvaluationTexts | None = None

    def rows(self) -> Iterator[ChatRow | LeftOut]:
        """Yield the rows of all files; one that cannot be read or repeats a test is left out.

        Raises EmptyFile if there are none.
        """
        if self.evaluation is None:
            yield from self._read_rows()
            return
        rows = self._read_rows()
        while block := list(islice(rows, BLOCK_ROWS)):
            yield from _without_tests(block, self.evaluation)

    def _read_rows(self) -> Iterator[ChatRow | LeftOut]:
        """Yield every row of all files, in order; adds each file to `inputs` once it is read.

        Raises EmptyFile if no file has a row. One empty file among others is allowed.
        """
        self.inputs.clear()
        for uri in self.files:
            file = open_unless_empty(uri, self.format)
            count = 0
            for row in file or ():
                count += 1
                yield chat_row(row)
            row_format = file.format.name if file else "empty"
            digest = storage.content_digest(uri)
            self.inputs.append(InputFile(uri=uri, digest=digest, rows=count, format=row_format))
        if not any(file.rows for file in self.inputs):
            raise EmptyFile(f"{', '.join(self.files)}: no rows; expected conversations")


def _without_tests(
    rows: Sequence[ChatRow | LeftOut], evaluation: EvaluationTexts
) -> Iterator[ChatRow | LeftOut]:
    """Yield `rows`, with a LeftOut for each that repeats an evaluation text."""
    texts = []
    for row in rows:
        if isinstance(row, ChatRow):
            texts.append([str(turn["content"]) for turn in row.messages])
    overlaps = iter(evaluation.find_overlaps(texts))
    for row in rows:
        is_contaminated = isinstance(row, ChatRow) and next(overlaps) is not None
        yield LeftOut(row.source, row.id, CONTAMINATED) if is_contaminated else row


def chat_row(row: Conversation | Quarantined) -> ChatRow | LeftOut:
    """Return a row of a pool as chat templates read it."""
    if isinstance(row, Quarantined):
        return LeftOut(row.source, "", f"it could not be read: {row.reason}")
    return ChatRow(row.id, row.source, chat_turns(row), parse_tools(row.tools))


def find_training_data(uris: Sequence[str], format: str = "auto") -> FoundData:
    """Return the files that `uris` name.

    Of an output of `reselect` they are those of its latest version. Raises InputError if there are
    none, DamagedArtifact if a selection is not what was written.
    """
    places = [versions.result_uri(uri) for uri in uris]
    parents = [parent for parent in map(_read_parent, places) if parent is not None]
    files = find_pool(places, load_layouts()).files
    for parent in parents:
        outputs = read_earlier_manifest(parent.uri).outputs
        for name in outputs:
            if storage.join(parent.uri, name) in files:
                checked_output(parent.uri, name, outputs)
    return FoundData(files, format, parents)


def _read_parent(uri: str) -> SelectionParent | None:
    """Return the selection in the folder `uri`; None if it is something else."""
    place = storage.join(uri, MANIFEST)
    try:
        manifest = read_earlier_manifest(uri)
    except StorageError:
        return None
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    return SelectionParent(
        uri=storage.absolute(uri),
        version=name if versions.NAME.fullmatch(name) else None,
        pool=manifest.pool,
        selector=storage.digest_of(manifest.fingerprints.get("selection")),
        manifest_sha256=storage.sha256_of(place),
    )
