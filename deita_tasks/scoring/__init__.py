"""Scoring: a score for each (instruction, response) pair, usually in [1, 6]. A file per backend.

base.py            the base class
causal_lm.py       the paper's scorers on transformers
vllm.py            the same on vLLM's offline engine
completions.py     the same behind an OpenAI-compatible server
judge.py           a rating by a chat model
mini/              small scorers that ship with the package
length.py          the length of the instruction or the response
provided.py        scores that the user provides
language_model.py  IFD and perplexity, which have ranges of their own

prompts.py         the paper's prompts
tokens.py          prompts to token ids
prompt_encoder.py  what the backends of the paper's scorers share
expected.py        logits to a score
served.py          what scorers behind a server share
http_client.py     requests to a server
"""

from typing import Any

from deita_tasks.catalogue import NAMED_SCORES, PROVIDED_SCORE, SCORERS
from deita_tasks.components import load_component
from deita_tasks.scoring.base import Scorer

__all__ = ["SCORERS", "Scorer", "load_scorer"]


def load_scorer(name: str, **options: Any) -> Scorer:
    """Return the scorer `name` of SCORERS; loads no model yet.

    Also a score with a range of its own, of NAMED_SCORES. Raises UsageError for a wrong name or
    option.
    """
    own_range = {**NAMED_SCORES, **PROVIDED_SCORE}
    table = own_range if name in own_range else SCORERS
    scorer: Scorer = load_component(table, "scorer", name, options)
    return scorer
