"""A checkpoint: a folder, or a repository of the Hugging Face hub held to one commit; and what
identifies its content.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deita_tasks.errors import ModelError, UsageError
from deita_tasks.presets import PINNED_REVISIONS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")

# Every file of a folder that can change a number; .bin counts only where there is no safetensors,
# as when loading.
_CONTENT = ("*.json", "*.model", "*.txt", "*.safetensors")
_NO_CONTENT = {"generation_config.json", "trainer_state.json", "README.txt"}

_digests: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Checkpoint:
    """`location`: a folder or a hub id. `revision`: the commit's 40 hex digits for a hub id, None
    for a folder.
    """

    location: str
    revision: str | None

    def identity(self) -> dict[str, str]:
        """What tells this content from any other: hub id and commit, or the digest of the folder's
        files (wherever the folder lies).
        """
        if self.revision is not None:
            return {"model": self.location, "revision": self.revision}
        return {"files_sha256": folder_digest(Path(self.location))}

    def file(self, name: str) -> Path | None:
        """The path of the file `name`, fetched if need be; None where the checkpoint does not have
        it.
        """
        if self.revision is None:
            path = Path(self.location, name)
            return path if path.is_file() else None
        return _hub_file(self.location, name, self.revision)

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in the file `name`; {} where the checkpoint does not have it."""
        path = self.file(name)
        if path is None:
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(
                f"{self.location}: {name} is not JSON ({error}); download the checkpoint again"
            ) from error
        return content

    def config(self) -> PretrainedConfig:
        """The model's configuration, without its weights."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(
                self.location, revision=self.revision, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{self.location}: its config.json cannot be used: {_first_line(error)}"
            ) from error

    def limit(self, max_length: int | None) -> int:
        """The longest text in tokens: `max_length`, or the window that config.json names. Raises
        UsageError for one that cannot be.
        """
        config = self.config()
        window: int | None = getattr(config, "max_position_embeddings", None)
        limit = max_length or window
        if limit is None:
            raise UsageError(
                f"{self.location} names no window of its own in config.json: give max_length"
            )
        if (
            window and limit > window and not getattr(config, "rope_parameters", None)
        ):  # rotary positions go on, learned ones end
            raise UsageError(
                f"max_length={limit}: {self.location} has positions for {window} tokens, ask "
                "for no more than that"
            )
        turn = rotary_turn(config, "dynamic")
        if turn and limit > turn:
            raise UsageError(
                f"max_length={limit}: {self.location} has rotary positions of the type "
                "dynamic, which change for a whole batch where "
                f"one of its texts is over {turn} tokens; ask for no more than that"
            )
        return limit


def rotary_turn(config: PretrainedConfig, kind: Literal["longrope", "dynamic"]) -> int | None:
    """The length in tokens beyond which rotary positions of this kind turn at other frequencies;
    None for a model of another kind.

    transformers takes them for a whole batch from its longest text
    (modeling_rope_utils.dynamic_rope_update): with `longrope` one of two sets; with `dynamic`
    another for each length, kept for the shorter texts that follow.
    """
    whole = getattr(config, "rope_parameters", None) or {}
    each = [
        one
        for one in (whole, *whole.values())
        if isinstance(one, dict) and kind in str(one.get("rope_type"))
    ]  # or one per layer type
    window: int = config.max_position_embeddings if each else 0
    turns: list[int] = [
        one.get("original_max_position_embeddings", window) if kind == "longrope" else window
        for one in each
    ]
    return min(turns, default=None)


def find_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint `model`: a local folder that exists, else a hub id at `revision` (default: the
    pinned one, else main), taken from the hub's cache where it is there. Loads no weights. Raises
    UsageError for what is neither, ModelError for a hub that does not have it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UsageError(
                f"{model} is a local folder, and revision {revision!r} was given: only a hub "
                "id has revisions, leave it out"
            )
        return Checkpoint(str(folder), None)
    if not _HUB_ID.fullmatch(model) or folder.is_absolute():
        raise UsageError(f"{model!r}: no such folder, and not a hub id (organisation/name)")
    revision = revision or PINNED_REVISIONS.get(model)
    if revision and _COMMIT.fullmatch(revision):
        return Checkpoint(model, revision)
    config = _hub_file(model, "config.json", revision or "main")
    if config is None:
        raise ModelError(
            f"{model}: the repository has no config.json; expected a transformers checkpoint"
        )
    return Checkpoint(model, config.parent.name)  # .../snapshots/<commit>/config.json


def _hub_file(model: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{model} at {revision} is not in the hub's cache, and the hub cannot be reached: "
            "give the path of a local folder instead, "
            "or run once with a network"
        ) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{model} at {revision}: the hub does not give {name}: {_first_line(error)}"
        ) from error


def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of the folder's weights, configuration, tokenizer and
    sentence-transformers modules.
    """
    folders = [folder]
    modules = folder / "modules.json"
    if modules.is_file():
        folders += [
            folder / module["path"]
            for module in json.loads(modules.read_text(encoding="utf-8"))
            if module["path"]
        ]
    files = {
        path
        for place in folders
        for pattern in _CONTENT
        for path in place.glob(pattern)
        if path.name not in _NO_CONTENT
    }
    if not any(path.suffix == ".safetensors" for path in files):
        files |= {path for path in folder.glob("*.bin") if path.name != "training_args.bin"}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, remembered in this process for as long as its size and time of change stay."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as stream:
            _digests[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _digests[key]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
