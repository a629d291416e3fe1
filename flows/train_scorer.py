"""Train a scorer of one's own: rewrite, judge, fit, measure.

deita train-scorer --input FILE --kind complexity --rewrite-url URL --rewrite-model NAME \\
    --base MODEL --output DIR
"""

# No `from __future__ import annotations` here: Prefect builds its form from these annotations.
from prefect import flow

from deita_tasks import tasks
from deita_tasks.config import (
    Judging,
    Output,
    Requests,
    Rewriting,
    Runtime,
    ScorerMeasures,
    ScorerTraining,
    SeedSource,
)
from deita_tasks.evolving.result import ScorerEstimate, TrainedScorer
from flows.steps import FLOW_OPTIONS


@flow(
    name="train-scorer",
    flow_run_name=tasks.name_run(
        "train a {source.kind} scorer from {training.name} on {source.name}"
    ),
    **FLOW_OPTIONS,
)
def train_scorer(
    source: SeedSource,
    rewriting: Rewriting,
    training: ScorerTraining,
    output: Output,
    judging: Judging = Judging(),  # noqa: B008 - frozen, so all runs may share it
    requests: Requests = Requests(),  # noqa: B008
    measures: ScorerMeasures = ScorerMeasures(),  # noqa: B008
    advanced: Runtime = Runtime(),  # noqa: B008
) -> TrainedScorer | ScorerEstimate:
    """Train a scorer of complexity or quality for your own language, domain or base model.

    A chat model rewrites your texts round by round, a judge scores each chain of rewrites in one
    request, and a base model learns to say the digit. Every reply is kept, so a killed run pays for
    none again. Measures the scorer on chains that it has not seen, beside the number of words, and
    writes a checkpoint that causal_lm takes, with its data, a card and a calibration plot.

    The result has the manifest's fields and the URI; of a dry run, the estimate.
    """
    output = tasks.in_run_folder(output)
    plan = tasks.plan_scorer(
        source, rewriting, judging, requests, training, measures, output, advanced
    )
    if requests.dry_run:
        return tasks.show_estimate(plan)
    made = tasks.make_chains(plan, requests, advanced)
    fitted = tasks.fit_scorer(plan, made.chains, training, measures, advanced)
    measured = tasks.measure_scorer(plan, fitted, advanced)
    groups = {"source": source, "rewriting": rewriting, "judging": judging, "requests": requests}
    groups |= {"training": training, "measures": measures, "output": output, "advanced": advanced}
    return tasks.export_scorer(
        plan, made.chains, made.usage, fitted, measured, output.output, advanced, groups
    )
