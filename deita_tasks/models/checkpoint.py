"""A checkpoint: a local folder, or a Hugging Face repository pinned to a commit."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deita_tasks.errors import ModelError, UsageError
from deita_tasks.presets import PINNED_REVISIONS
from deita_tasks.strict_json import JSON

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")

# The files of a folder that can change a number. As when loading, .bin files count only if there is
# no safetensors file.
_CONTENT = ("*.json", "*.model", "*.txt", "*.safetensors")
_NO_CONTENT = {"generation_config.json", "trainer_state.json", "README.txt"}

_digests: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Checkpoint:
    """A model's files.

    `location`: a folder or a hub id. `revision`: for a hub id the commit's 40 hex digits, for a
    folder None.
    """

    location: str
    revision: str | None

    def identity(self) -> dict[str, JSON]:
        """Return what identifies the content, for a fingerprint.

        Hub id and commit, or the digest of the folder's files, wherever the folder is.
        """
        if self.revision is not None:
            return {"model": self.location, "revision": self.revision}
        return {"files_sha256": folder_digest(Path(self.location))}

    def file(self, name: str) -> Path | None:
        """Return the path of a file, downloaded if necessary; None if there is no such file.

        Raises ModelError if the hub is needed and cannot be reached.
        """
        if self.revision is None:
            path = Path(self.location, name)
            return path if path.is_file() else None
        return _hub_file(self.location, name, self.revision)

    def json(self, name: str) -> dict[str, JSON]:
        """Return the JSON object in a file; {} if there is no such file.

        Raises ModelError for a file that is not JSON, and what `file` raises.
        """
        path = self.file(name)
        if path is None:
            return {}
        try:
            content: dict[str, JSON] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(
                f"{self.location}: {name} is not JSON ({error}); download the checkpoint again"
            ) from error
        return content

    def config(self) -> PretrainedConfig:
        """Return the model's configuration, without its weights.

        Raises ModelError if transformers does not know the model, or there is no config.json.
        """
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
        """Return the longest text in tokens: `max_length`, or the window in config.json.

        Raises UsageError if there is neither, or if the model cannot read texts of that length.
        """
        config = self.config()
        window: int | None = getattr(config, "max_position_embeddings", None)
        limit = max_length or window
        if limit is None:
            raise UsageError(f"{self.location}: config.json names no window; set max_length")
        has_rotary = bool(getattr(config, "rope_parameters", None))
        if window and limit > window and not has_rotary:  # learned positions end there
            raise UsageError(
                f"max_length={limit}: {self.location} has positions for {window} tokens; set "
                "max_length to that or less"
            )
        threshold = rope_threshold(config, "dynamic")
        if threshold and limit > threshold:
            raise UsageError(
                f"max_length={limit}: {self.location} has rotary positions of the type dynamic, "
                "which change for a whole batch if one of its texts is over "
                f"{threshold} tokens; set max_length to that or less"
            )
        return limit


def rope_threshold(config: PretrainedConfig, kind: Literal["longrope", "dynamic"]) -> int | None:
    """Return the length in tokens beyond which rotary positions use other frequencies.

    None for a model without rotary positions of this kind. transformers chooses the frequencies of
    a batch by its longest text (modeling_rope_utils.dynamic_rope_update): with `longrope` one of
    two sets; with `dynamic` another set for each length, kept for shorter texts that follow.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    candidates = (rope, *rope.values())  # one set of parameters, or one per layer type
    matching = [
        parameters
        for parameters in candidates
        if isinstance(parameters, dict) and kind in str(parameters.get("rope_type"))
    ]
    if not matching:
        return None
    window: int = config.max_position_embeddings
    if kind == "dynamic":
        return window
    thresholds: list[int] = [
        parameters.get("original_max_position_embeddings", window) for parameters in matching
    ]
    return min(thresholds)


def find_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint `model`; loads no weights.

    `model`: an existing local folder, else a hub id at `revision` (default: the pinned one, else
    main), from the hub's cache if it is there. Raises UsageError for anything else, ModelError if
    the hub does not have it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UsageError(
                f"{model} is a local folder, but revision {revision!r} was given: only a hub id "
                "has revisions; leave it out"
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
    commit = config.parent.name  # .../snapshots/<commit>/config.json
    return Checkpoint(model, commit)


def weights_bytes(checkpoint: Checkpoint) -> int | None:
    """Return the size of a checkpoint's safetensors; None if they are not on this machine.

    In bytes, over all shards; 0 for a folder that has only other formats.
    """
    from huggingface_hub import try_to_load_from_cache

    location, revision = checkpoint.location, checkpoint.revision
    if revision is None:
        return sum(path.stat().st_size for path in Path(location).glob("*.safetensors"))
    for name in ("model.safetensors", "model.safetensors.index.json"):
        path = try_to_load_from_cache(location, name, revision=revision)
        if isinstance(path, str):  # the files of one commit are in one folder
            return sum(file.stat().st_size for file in Path(path).parent.glob("*.safetensors"))
    return None


def _hub_file(model: str, name: str, revision: str) -> Path | None:
    """Return the path of a file in the hub's cache, downloaded if necessary.

    None if the repository has no such file. Raises ModelError if the hub cannot be reached and the
    cache does not have it, or if the hub refuses.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{model} at {revision} is not in the hub's cache, and the hub cannot be reached: "
            "give the path of a local folder, or run once with a network"
        ) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{model} at {revision}: the hub does not provide {name}: {_first_line(error)}"
        ) from error


def folder_digest(folder: Path) -> str:
    """Return the sha256 over the names and contents of the files that can change a number.

    These are weights, configuration, tokenizer and sentence-transformers modules.
    """
    files = {
        path
        for module in _module_folders(folder)
        for pattern in _CONTENT
        for path in module.glob(pattern)
        if path.name not in _NO_CONTENT
    }
    if not any(path.suffix == ".safetensors" for path in files):
        files |= {path for path in folder.glob("*.bin") if path.name != "training_args.bin"}
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def _module_folders(folder: Path) -> list[Path]:
    """Return the folder itself and those of its sentence-transformers modules.

    The folder alone if it lists no modules, as for a decoder.
    """
    index = folder / "modules.json"
    if not index.is_file():
        return [folder]
    modules = json.loads(index.read_text(encoding="utf-8"))
    return [folder, *(folder / module["path"] for module in modules if module["path"])]


def file_digest(path: Path) -> str:
    """Return the sha256 of a file. Cached until its size or modification time changes."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as stream:
            _digests[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _digests[key]


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name if it has none."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
