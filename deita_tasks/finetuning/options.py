"""What the parameters of a run mean: the recipe with what overrides it, and the base model."""

from __future__ import annotations

from typing import Any

from deita_tasks.config import Preferences, Training, TrainingOptions
from deita_tasks.errors import UsageError
from deita_tasks.models.chat_tokenizer import BaseName
from deita_tasks.recipes import RECIPES, DpoRecipe, Lora, SftRecipe


def base_of(training: TrainingOptions) -> BaseName:
    """Return the base model, pinned to a commit if it is on the hub.

    Raises UsageError or ModelError if there is no such model.
    """
    if "://" in training.base:
        raise UsageError(
            f"base = {training.base!r}: models are not read from addresses; expected a hub id "
            "(organisation/name) or a local folder"
        )
    base = BaseName(
        model=training.base,
        revision=training.base_revision,
        chat_template=training.chat_template if isinstance(training, Training) else None,
        default_template=RECIPES[training.recipe].chat_template,
    )
    checkpoint = base.checkpoint()
    return base.model_copy(update={"revision": checkpoint.revision})


def sft_recipe(training: TrainingOptions) -> SftRecipe:
    """Return the recipe's SFT with what the parameters set.

    A parameter that is None leaves the recipe's value; a lora_rank of 0 trains the whole model.
    """
    recipe = RECIPES[training.recipe].sft
    set_values = {
        "epochs": training.epochs,
        "learning_rate": training.learning_rate,
        "batch_size": training.batch_size,
    }
    return recipe.model_copy(update=_changes(set_values, recipe.lora, training))


def dpo_recipe(training: Training, preferences: Preferences) -> DpoRecipe:
    """Return the recipe's DPO with what the parameters set.

    A parameter that is None leaves the recipe's value; window and adapter are set as for SFT.
    """
    recipe = RECIPES[training.recipe].dpo
    set_values = {
        "epochs": preferences.dpo_epochs,
        "learning_rate": preferences.dpo_learning_rate,
        "batch_size": preferences.dpo_batch_size,
        "beta": preferences.beta,
    }
    return recipe.model_copy(update=_changes(set_values, recipe.lora, training))


def _changes(
    set_values: dict[str, Any], lora: Lora | None, training: TrainingOptions
) -> dict[str, Any]:
    """Return the fields of a recipe that the parameters set: those that are not None.

    A lora_rank of 0 takes the adapter away: the whole model is trained.
    """
    shared = {
        "max_length": training.max_length,
        "device_batch_size": training.device_batch_size,
        "low_precision": training.bfloat16,
    }
    changes = {name: value for name, value in {**set_values, **shared}.items() if value is not None}
    rank = training.lora_rank
    if rank is not None:
        changes["lora"] = (lora or Lora()).model_copy(update={"rank": rank}) if rank else None
    return changes
