"""The card beside `latest`, by which `datasets` loads the newest of several versions alone."""

from __future__ import annotations

from deita_tasks import storage
from deita_tasks.exporting.card import CARD_FILE, move_data_files
from deita_tasks.results.versions import FOLDER, version_uri

MARK = "<!-- The card of the latest version, made again with each version. -->"


def write_version_card(output: str, name: str) -> None:
    """Write the card of the version `name` into `output`; a README.md of somebody else stays.

    Without it, `datasets.load_dataset(output)` would mix all files of all versions.
    """
    place = storage.join(output, CARD_FILE)
    card = storage.join(version_uri(output, name), CARD_FILE)
    is_foreign = storage.exists(place) and MARK not in _read_text(place)
    if is_foreign or not storage.exists(card):
        return
    text = move_data_files(_read_text(card), f"{FOLDER}/{name}", MARK)
    storage.write_bytes(place, text.encode())


def _read_text(uri: str) -> str:
    """Return a file as text, UTF-8. Raises MissingFile."""
    with storage.open_read(uri) as handle:
        return handle.read().decode()
