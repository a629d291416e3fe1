"""Compare models: trained on a selection, on random rows, on the longest, on the best scores.

deita compare --selection DIR --base MODEL --held-out FILE --output DIR
"""

# No `from __future__ import annotations` here: Prefect builds its form from these annotations.
from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import Comparison, Measures, Output, Runtime, Training
from deita_tasks.results.comparison import ComparedModels
from flows.steps import FLOW_OPTIONS


@flow(
    name="compare-models",
    flow_run_name=tasks.name_run("compare {comparison.name} with others on {training.name}"),
    **FLOW_OPTIONS,
)
def compare_models(
    comparison: Comparison,
    training: Training,
    output: Output,
    measures: Measures = Measures(),  # noqa: B008 - frozen, so all runs may share it
    advanced: Runtime = Runtime(),  # noqa: B008
) -> ComparedModels:
    """Does the selection train a better model than other rows of its pool?

    Trains one base model by one recipe and the same seeds on the selection, on random rows, on the
    rows with the longest answers and on those with the best scores, all of one size. Measures each
    model by its loss on your own held-out rows, by preference pairs, by tasks of lm-eval, and by a
    judge. Says in one sentence what can be said, and writes a page, a table and JSON.

    The result has the manifest's fields and the measures.
    """
    output = tasks.in_run_folder(output)
    plan = tasks.plan_comparison(comparison, training, measures, output, advanced)
    runs = tasks.train_arms(plan, comparison, training, advanced)
    runs = tasks.measure_arms(plan, runs, measures, advanced)
    samples = tasks.answer_prompts(plan, runs, measures, advanced)
    judgements = tasks.judge_answers(samples, measures, advanced)
    return tasks.export_comparison(
        plan,
        runs,
        samples,
        judgements,
        output.output,
        advanced,
        {
            "comparison": comparison,
            "training": training,
            "measures": measures,
            "output": output,
            "advanced": advanced,
        },
    )
