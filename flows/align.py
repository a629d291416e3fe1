"""Train a base model on a selection by SFT, and on preference pairs by DPO if there are any.

deita align --input SELECTION --base MODEL --output DIR
"""

# No `from __future__ import annotations` here: Prefect builds its form from these annotations.
from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import Output, Preferences, Runtime, Training, TrainingData
from deita_tasks.results.alignment import AlignedModel
from flows.steps import FLOW_OPTIONS


@flow(
    name="align-model",
    flow_run_name=tasks.name_run("align {training.name} on {source.name} by {training.recipe}"),
    **FLOW_OPTIONS,
)
def align_model(
    source: TrainingData,
    training: Training,
    output: Output,
    preferences: Preferences = Preferences(),  # noqa: B008 - frozen, so all runs may share it
    advanced: Runtime = Runtime(),  # noqa: B008
) -> AlignedModel:
    """Train a model on a selection, a version of reselect, or any conversations.

    SFT with loss on the assistant's words alone, then DPO if there are preferences. What the window
    cuts is counted first. A killed run goes on from its last checkpoint; a training that the store
    has is not repeated. Writes the model or adapter with its tokenizer, a card, the loss of every
    update and a manifest that names its parents.

    The result has the manifest's fields and the URI.
    """
    output = tasks.in_run_folder(output)
    found = tasks.check_alignment(source, training, output, advanced)
    preparation = tasks.prepare_training(found, source, training, advanced)
    models = [tasks.train(preparation, training.launcher, advanced)]
    if preferences.preferences:
        preparation = tasks.prepare_preferences(preparation, training, preferences, advanced)
        models.append(tasks.train(preparation, training.launcher, advanced))
    groups = {"source": source, "training": training, "output": output, "advanced": advanced}
    groups |= {"preferences": preferences}
    return tasks.export_model(models, found, output.output, advanced, groups)
