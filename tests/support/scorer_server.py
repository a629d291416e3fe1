"""A stand-in for both chat models of `train-scorer`: it rewrites, and judges by a hidden rule.

Every answer follows from the request alone. A text's hidden grade is that of the highest word of
GRADES in it. A rewrite adds a few words and often a word of the next grade; the judge gives the
grade, and in one of `noise_one_in` texts a neighbour of it.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.completions_server import Script
from tests.support.small_pool import write_rows

GRADES = ("plain", "careful", "thorough", "rigorous", "formal", "axiomatic")
FILLER_TEXT = "and also with some more words about it for the sea sand wind in time"
FILLERS = FILLER_TEXT.split()
_BLOCK = re.compile(r"<(instruction|response|text \d+) (\w{16})>\n(.*?)\n</\1 \2>", re.DOTALL)


def grade(text: str) -> int:
    """The hidden score, 1 to 6."""
    return max((number for number, word in enumerate(GRADES, 1) if word in text.split()), default=1)


def seed_text(number: int) -> str:
    """An instruction of grade 1 or 2."""
    dice = random.Random(number)
    words = dice.sample(FILLERS, dice.randint(2, 8))
    return f"Write {dice.choice(GRADES[:2])} text {number} {' '.join(words)}"


def write_seeds(path: Path, count: int) -> Path:
    """Write `count` conversations that begin with seed texts."""
    rows = [{"prompt": seed_text(number), "response": "Yes."} for number in range(count)]
    return write_rows(path, rows)


def _dice(text: str) -> random.Random:
    return random.Random(hashlib.sha256(text.encode()).hexdigest())


def rewrite(text: str) -> str:
    dice = _dice(text)
    words = dice.choices(FILLERS, k=dice.randint(1, 9))
    if dice.random() < 0.75:
        words.insert(dice.randrange(len(words)), GRADES[min(grade(text), 5)])
    return f"{text} {' '.join(words)}"


def judged(text: str, noise_one_in: int) -> int:
    dice = _dice(f"judge {text}")
    noise = dice.choice((-1, 1)) if dice.randrange(noise_one_in) == 0 else 0
    return min(6, max(1, grade(text) + noise))


class ScorerServer(Script):
    """`broken_one_in`: so many rewrites are refusals at first. `usage`: tokens of each request."""

    def __init__(self, noise_one_in: int = 12, broken_one_in: int = 9) -> None:
        super().__init__()
        self.noise_one_in = noise_one_in
        self.broken_one_in = broken_one_in
        self.answered: list[str] = []

    def chat(self, body: dict[str, Any]) -> tuple[int, Any]:
        request = body["messages"][0]["content"]
        blocks = _BLOCK.findall(request)
        texts = [text for name, _, text in blocks if name.startswith("text ")]
        reply = "yes"  # to a question without texts
        if texts:
            reply = self.judge(texts)
        elif blocks:
            reply = self.rewrite(request, blocks[-1][2])
        with self.lock:
            self.answered.append(request)
        usage = {"prompt_tokens": len(request.split()), "completion_tokens": len(reply.split())}
        message = {"role": "assistant", "content": reply}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    def rewrite(self, request: str, text: str) -> str:
        first = request not in self.answered
        if first and _dice(f"broken {text}").randrange(self.broken_one_in) == 0:
            return "I'm sorry, but I cannot help with that."
        return rewrite(text)

    def judge(self, texts: Sequence[str]) -> str:
        scores = [judged(text, self.noise_one_in) for text in texts]
        return "\n".join(f"[{number}] Score: {score}" for number, score in enumerate(scores, 1))
