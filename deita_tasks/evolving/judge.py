"""Scores of all texts of a chain, from one request: texts side by side are told apart better.

The order is shuffled, so that a judge that prefers a place, or expects the last text to be the
best, gains nothing by it.
"""

from __future__ import annotations

import random
import re

from deita_tasks.evolving.chains import Chain
from deita_tasks.evolving.replies import Ask, Message
from deita_tasks.evolving.templates import Templates, fill, text_code
from deita_tasks.scoring.http_client import Refused, shorten

JUDGE_ATTEMPTS = 3
FEWEST_TEXTS = 2
_LINE = re.compile(r"\s*\[(\d{1,3})\]\s*score:\s*([1-6])\s*\.?\s*", re.IGNORECASE)


def judge(chain: Chain, templates: Templates, ask: Ask, random_seed: int) -> Chain:
    """Return a chain with scores, or with the problem why it has none.

    A reply that cannot be read is asked for again; no score is guessed. Raises what
    `ChatModel.ask` raises, but for a refused request.
    """
    if len(chain.variants) < FEWEST_TEXTS:
        return _without(chain, f"nothing to compare with: {chain.ended}")
    order = list(range(len(chain.variants)))
    random.Random(f"judge {random_seed} {chain.id}").shuffle(order)
    texts = [chain.variants[position].text for position in order]
    request = judge_request(chain, templates, texts)
    messages: list[Message] = [{"role": "user", "content": request}]
    expected = f"{len(order)} lines such as '[1] Score: 3'"
    reminder = f"That cannot be read. Reply with {expected}, one for each text, and nothing else."
    reply = ""
    for attempt in range(JUDGE_ATTEMPTS):
        try:
            answer = ask(messages, attempt)
        except Refused as error:
            return _without(chain, str(error))
        reply = answer.text
        scores = None if answer.is_cut else parse_scores(reply, len(order))
        if scores is not None:
            return _with(chain, dict(zip(order, scores, strict=True)))
        own: Message = {"role": "assistant", "content": shorten(reply)}
        messages = [*messages, own, {"role": "user", "content": reminder}]
    return _without(chain, f"the judge replied {shorten(reply, 80)!r}; expected {expected}")


def judge_request(chain: Chain, templates: Templates, texts: list[str]) -> str:
    """Return the message that shows the judge `texts`, numbered from 1."""
    shown = [] if chain.kind == "complexity" else [chain.instruction]
    code = text_code(*shown, *texts)
    blocks = [f"<instruction {code}>\n{text}\n</instruction {code}>" for text in shown]
    for number, text in enumerate(texts, 1):
        blocks.append(f"<text {number} {code}>\n{text}\n</text {number} {code}>")
    return fill(templates.judge, {"texts": "\n\n".join(blocks), "code": code})


def parse_scores(reply: str, count: int) -> list[int] | None:
    """Return the scores of texts 1 to `count`; None unless each has one line, and nothing else."""
    scores: dict[int, int] = {}
    for line in reply.splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None or int(match[1]) in scores:
            return None
        scores[int(match[1])] = int(match[2])
    numbers = range(1, count + 1)
    if sorted(scores) != list(numbers):
        return None
    return [scores[number] for number in numbers]


def _with(chain: Chain, scores: dict[int, int]) -> Chain:
    """Return a copy of the chain with scores. scores: by the position of each variant."""
    variants = [
        variant.model_copy(update={"score": scores[position]})
        for position, variant in enumerate(chain.variants)
    ]
    return chain.model_copy(update={"variants": variants})


def _without(chain: Chain, problem: str) -> Chain:
    """Return a copy of the chain that says why it has no scores."""
    return chain.model_copy(update={"problem": problem})
