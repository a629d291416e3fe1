"""Scoring: a score in [1, 6] for each (instruction, response) pair; one file a backend."""

from typing import Any

from deita_tasks.components import Table, load_component
from deita_tasks.scoring.base import Scorer

SCORERS: Table = {
    "causal_lm": "deita_tasks.scoring.causal_lm:CausalLMScorer",
    "mini": "deita_tasks.scoring.mini.scorer:MiniScorer",
    "instruction_length": "deita_tasks.scoring.length:InstructionLength",
    "response_length": "deita_tasks.scoring.length:ResponseLength",
    "vllm": "deita_tasks.scoring.vllm:VLLMScorer",
    "openai": "deita_tasks.scoring.completions:CompletionsScorer",
    "provided": "deita_tasks.scoring.provided:ProvidedScorer",
    "judge": "deita_tasks.scoring.judge:JudgeScorer",
}


def load_scorer(name: str, **options: Any) -> Scorer:
    """The scorer `name` of SCORERS. Raises UsageError for a wrong name or option; loads no model
    yet.
    """
    scorer: Scorer = load_component(SCORERS, "scorer", name, options)
    return scorer
