"""Recipes: how `align` and `compare` train. Each has its source; the parameters may override it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PAPER = "DEITA, arXiv 2312.15685, appendix A, and the original's training scripts"
LORA_RATE = (
    "ten times the rate of full fine-tuning: LoRA Without Regret (Thinking Machines, 2025), which "
    "TRL's documentation reproduces"
)


class Settings(BaseModel):
    """Base class of what a recipe consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(Settings):
    """A LoRA adapter on all linear layers (arXiv 2106.09685; all layers: QLoRA, arXiv 2305.14314).

    An adapter's output is scaled by alpha / rank.
    """

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class Recipe(Settings):
    """How one stage trains; what SFT and DPO share.

    batch_size: rows of one update, over all devices. device_batch_size: rows that a device holds at
    once; it changes memory and the last digits of the weights, not the method. max_length: tokens
    of a row; the rest is cut. low_precision: products in bfloat16; the weights
    themselves stay float32 unless there is a LoRA adapter.
    """

    source: str
    epochs: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    schedule: str = "cosine"
    max_length: int = Field(2048, ge=8)
    device_batch_size: int = Field(1, ge=1)
    low_precision: bool = True
    gradient_checkpointing: bool = True
    lora: Lora | None = None


class SftRecipe(Recipe):
    """How SFT trains."""

    stage: Literal["sft"] = "sft"


class DpoRecipe(Recipe):
    """How DPO trains. beta: how strongly the reference model holds the trained one."""

    stage: Literal["dpo"] = "dpo"
    schedule: str = "linear"
    beta: float = Field(0.1, gt=0)


class RecipePair(Settings):
    """The SFT of a recipe, and the DPO that may follow."""

    purpose: str
    chat_template: str  # for a base model without one; see models/chat_templates.py
    sft: SftRecipe
    dpo: DpoRecipe


_PAPER_DPO = DpoRecipe(
    source=f"{PAPER}: DPO on UltraFeedback; its limit of 512 tokens for prompts is not in TRL 1",
    epochs=9,
    learning_rate=5e-7,
    batch_size=32,
)

RECIPES: Mapping[str, RecipePair] = {
    # Trains on a CPU within minutes: for models of up to a few hundred million parameters.
    "cpu": RecipePair(
        purpose="a small model on a CPU",
        chat_template="vicuna",
        sft=SftRecipe(
            source="ours: the paper's rate and schedule for smaller batches and a shorter window",
            epochs=3,
            learning_rate=2e-5,
            batch_size=16,
            max_length=512,
            device_batch_size=4,
            low_precision=False,
            gradient_checkpointing=False,
        ),
        dpo=DpoRecipe(
            source="ours: the paper's beta and schedule for smaller batches and a shorter window",
            epochs=1,
            learning_rate=5e-7,
            batch_size=16,
            max_length=512,
            device_batch_size=2,
            low_precision=False,
            gradient_checkpointing=False,
        ),
    ),
    # By arithmetic: 15 GB of weights in bfloat16, under 1 GB of adapter and optimizer.
    "lora_24gb": RecipePair(
        purpose="a 7B model on one GPU of 24 GB, by LoRA",
        chat_template="vicuna",
        sft=SftRecipe(
            source=f"{PAPER}, with LoRA: {LORA_RATE}",
            epochs=3,
            learning_rate=2e-4,
            batch_size=32,
            lora=Lora(),
        ),
        dpo=DpoRecipe(
            source=f"{PAPER}, with LoRA: {LORA_RATE}",
            epochs=1,
            learning_rate=5e-6,
            batch_size=32,
            lora=Lora(),
        ),
    ),
    "paper_7b": RecipePair(
        purpose="Mistral-7B as in the paper, on several GPUs",
        chat_template="vicuna",
        sft=SftRecipe(source=f"{PAPER}: Mistral-7B", epochs=6, learning_rate=2e-5, batch_size=512),
        dpo=_PAPER_DPO,
    ),
    "paper_13b": RecipePair(
        purpose="LLaMA-2-13B as in the paper, on several GPUs",
        chat_template="vicuna",
        sft=SftRecipe(source=f"{PAPER}: LLaMA-2-13B", epochs=6, learning_rate=2e-5, batch_size=128),
        dpo=_PAPER_DPO,
    ),
    "paper_13b_llama1": RecipePair(
        purpose="LLaMA-1-13B as in the paper, on several GPUs",
        chat_template="vicuna",
        sft=SftRecipe(
            source=f"{PAPER}: LLaMA-1-13B",
            epochs=6,
            learning_rate=1e-5,
            batch_size=128,
            warmup_ratio=0.03,
        ),
        dpo=_PAPER_DPO,
    ),
}
