"""What a run makes, as assets of Prefect: pool, selection and version, and what each is made of.

An asset is an event, so nothing depends on whether the server shows lineage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.assets import Asset, AssetProperties
from prefect.tasks import MaterializingTask
from prefect.types.names import MAX_ASSET_KEY_LENGTH, RESTRICTED_ASSET_CHARACTERS

from deita_tasks import storage

MAX_INPUTS = 20  # of a pool; Prefect sends an event for each
RESTRICTED = str.maketrans(dict.fromkeys(RESTRICTED_ASSET_CHARACTERS, "_"))


def asset_of(uri: str, name: str | None = None) -> Asset:
    """Return the asset of what lies at `uri`. Its key is the URI, as far as Prefect allows it.

    Prefect allows no spaces and few signs. A URI with others gets "_" for them, and its digest, so
    that no two share a key.
    """
    address = f"file://{storage.absolute(uri)}" if storage.is_local(uri) else uri
    key = address.translate(RESTRICTED)
    if key != address or len(key) > MAX_ASSET_KEY_LENGTH:
        digest = storage.digest_of(address)[:16]
        key = f"{key[: MAX_ASSET_KEY_LENGTH - len(digest) - 1]}-{digest}"
    return Asset(key=key, properties=AssetProperties(name=name) if name else None)


def materializing(
    task: MaterializingTask[..., Any], uri: str, name: str, sources: Sequence[str]
) -> MaterializingTask[..., Any]:
    """Return `task` as what makes the asset at `uri` from those at `sources`."""
    return task.with_options(
        assets=[asset_of(uri, name)],
        asset_deps=[asset_of(source) for source in sources[:MAX_INPUTS]],
    )
