"""The model to start from and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deita_tasks.errors import ModelError
from deita_tasks.finetuning.job import ADAPTER_FILE
from deita_tasks.models.quiet import quiet_loading
from deita_tasks.recipes import Lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(location: str, revision: str | None, dtype: str) -> PreTrainedModel:
    """Return the causal language model in a folder or on the hub, on the CPU.

    dtype: float32 or bfloat16. An adapter's folder gives its base model with the adapter, which can
    be trained on. Raises ModelError for a checkpoint that cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    if Path(location, ADAPTER_FILE).is_file():
        return _load_adapter(location, dtype)
    try:
        with quiet_loading():
            model = AutoModelForCausalLM.from_pretrained(
                location,
                revision=revision,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{location}: cannot be loaded as a causal language model ({_first_line(error)}); "
            "expected config.json and weights as safetensors"
        ) from error
    if getattr(model.config, "quantization_config", None):
        raise ModelError(
            f"{location}: its weights are quantized, and cannot be trained; expected the model "
            "before it was quantized"
        )
    return model


def _load_adapter(folder: str, dtype: str) -> Any:
    """Return the adapter in a folder on top of its base, the adapter's weights trainable.

    Raises ModelError if the base model cannot be loaded.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(folder)
    base = load_model(str(config.base_model_name_or_path), config.revision, dtype)
    with quiet_loading():
        return PeftModel.from_pretrained(base, folder, is_trainable=True)


def lora_config(lora: Lora) -> Any:
    """Return peft's configuration of an adapter on all linear layers.

    All but the output layer, as peft means "all-linear".
    """
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _first_line(error: BaseException) -> str:
    """Return what an error says first; messages of transformers go on over many lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
