"""What the mini scorers see of a text without a model: counts of words, requests, constraints,
repetitions.

Counts enter as log(1 + count): equal ratios count alike. Text pasted into an instruction adds words
and no demands, so the sentences that ask for something are counted apart from the others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from math import log1p, sqrt

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE_END = re.compile(
    r"(?<![.!?])[.!?]+(?:\s|$)"
)  # only from where a run begins: else a long one is read again from every dot
_SENTENCE_GAP = re.compile(r"(?<=[.!?;])\s+|\n+")
_BULLET = re.compile(
    r"(?m)^[^\S\n]*(?:[-*•]|\d+[.)])\s"
)  # within its line: else blank lines are read again from every one
_NUMBER = re.compile(r"\d+")
_REQUEST = re.compile(
    r"\b(?:analy[sz]e|argue|assess|calculate|classify|compare|compose|consider|contrast|convert|create|critique|debate|define|demonstrate|"
    r"derive|describe|design|determine|develop|devise|discuss|draft|elaborate|estimate|evaluate|examine|explain|explore|find|formulate|"
    r"generate|give|highlight|identify|illustrate|implement|include|infer|interpret|investigate|justify|list|optimi[sz]e|outline|plan|"
    r"propose|prove|provide|recommend|rewrite|show|simulate|solve|specify|suggest|summari[sz]e|support|tell|translate|write)\b",
    re.IGNORECASE,
)
_CONSTRAINT = re.compile(
    r"\b(?:additionally|also|assum\w+|at least|at most|avoid|based "
    r"on|besides|both|but|constraint\w*|do not|don't|each|ensur\w+|every|"
    r"exactly|except|following|furthermore|given|however|if|in "
    r"addition|incorporat\w+|limit\w*|make sure|maximum|minimum|moreover|must|"
    r"no more than|not|only|requir\w+|should|step by step|style|such "
    r"that|suppose|then|under|unless|using|while|with|within|without)\b",
    re.IGNORECASE,
)
_IMPERATIVE = re.compile(
    r"^\W*(?:please\s+|now\s+|then\s+|also,?\s+|additionally,?\s+|finally,?\s+|can "
    r"you\s+|could you\s+)*([a-z]+)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:as an ai|i'?m sorry|i am sorry|i apologi[sz]e|i can(?:no|')t|i can not|i am "
    r"unable|i'm unable|unfortunately|language model)\b",
    re.IGNORECASE,
)
_ROLE = re.compile(r"(?i)\b(?:user|human|assistant|instruction|input|response|output)\s*:")
_LINKING = {
    "however",
    "because",
    "therefore",
    "example",
    "first",
    "second",
    "finally",
    "additionally",
    "instance",
    "such",
    "overall",
    "conclusion",
}
_FUNCTION_WORDS = set(
    re.findall(
        r"\w+",
        "a an the of to in is are was were be been it its this that these those and or but "
        "for on with as at by from i you he she they "
        "we your my our their his her me him them not no do does did have has had will would "
        "can could should may might there here what "
        "which who how why when where if then so than too very just about into over also "
        "more most some any all",
    )
)


def instruction_features(text: str) -> dict[str, float]:
    """Features of an instruction, by name."""
    words = [word.lower() for word in _WORD.findall(text)]
    lines = [line for line in text.split("\n") if line.strip()] or [""]
    first = words[0] if words else ""
    requests, constraints = _REQUEST.findall(text), _CONSTRAINT.findall(text)
    return {
        **_counts(text, words),
        "options": log1p(len(re.findall(r"(?:^|\s)\(?[A-E][).:]\s", text))),
        "quotes": log1p(len(re.findall(r'["“”«»]', text))),
        "conjunctions": log1p(words.count("and") + words.count("or")),
        "requests": log1p(len(requests)),
        "different_requests": log1p(len({word.lower() for word in requests})),
        "constraints": log1p(len(constraints)),
        "different_constraints": log1p(len({word.lower() for word in constraints})),
        "constraint_density": log1p(len(constraints)) - log1p(len(words)),
        "starts_what": float(
            first
            in (
                "what",
                "who",
                "when",
                "where",
                "which",
                "is",
                "are",
                "do",
                "does",
                "did",
                "can",
                "name",
            )
        ),
        "starts_how": float(first in ("how", "why")),
        "asks_how": float("how" in words or "why" in words),
        "first_line": log1p(len(_WORD.findall(lines[0]))),
        "last_line": log1p(len(_WORD.findall(lines[-1]))),
        "long_words": log1p(sum(len(word) > 7 for word in words)),
        "different_long_words": log1p(len({word for word in words if len(word) > 6})),
        "words_up_to_100": log1p(min(len(words), 100)),
        **_sentences(text),
    }


def response_features(instruction: str, response: str) -> dict[str, float]:
    """Features of a response to its instruction, by name."""
    asked, words = [
        [word.lower() for word in _WORD.findall(text)] for text in (instruction, response)
    ]
    topic = set(asked) - _FUNCTION_WORDS
    content = [word for word in words if word not in _FUNCTION_WORDS]
    triples, doubles = list(zip(words, words[1:], words[2:], strict=False)), list(pairwise(words))
    repeated = _share(len(triples) - len(set(triples)), triples)
    lines = [line.strip() for line in response.split("\n") if line.strip()]
    raw = response.encode("utf-8", "surrogatepass")
    start, end = response.lstrip()[:1], response.rstrip()[-1:]
    known = set(pairwise(asked))
    return {
        **_counts(response, words),
        "words_squared": log1p(len(words)) ** 2 / 5,
        "words_over_90": max(0.0, log1p(len(words)) - 4.5),
        "words_over_245": max(0.0, log1p(len(words)) - 5.5),
        "few_words": float(len(words) <= 3),
        "repeated_lines": _share(len(lines) - len(set(lines)), lines),
        "repeated": repeated,
        "repetitions": log1p(repeated * len(words)),
        "compressed": len(zlib.compress(raw)) / max(len(raw), 1),
        "ends_well": float(bool(end) and end in ".!?\"”)`'*:"),
        "ends_open": float(bool(end) and end in ",;-("),
        "ends_in_word": float(end.isalnum() and len(words) > 30),
        "starts_upper": float(start.isupper()),
        "exclamations": log1p(response.count("!")),
        "refuses": float(bool(_REFUSAL.search(response))),
        "starts_refusing": float(bool(_REFUSAL.search(response[:150]))),
        "says_i": log1p(sum(word in ("i", "my", "me", "i'm") for word in words)),
        "says_you": log1p(sum(word in ("you", "your") for word in words)),
        "covered": _share(len(topic & set(words)), topic),
        "on_topic": _share(sum(word in topic for word in content), content),
        "copied": _share(sum(double in known for double in doubles), doubles),
        "contained": float(response.strip().lower() in instruction.lower()),
        "other_script": abs(
            _share(_foreign(response), response) - _share(_foreign(instruction), instruction)
        ),
        "words_beyond_asked": log1p(len(words)) - log1p(len(asked)),
        "roles": float(bool(_ROLE.search(response))),
        "linking": log1p(sum(word in _LINKING for word in words)),
        "paragraphs": float("\n\n" in response),
        "markdown": float("**" in response or "#" in response),
    }


def _counts(text: str, words: Sequence[str]) -> dict[str, float]:
    """What is counted in instructions and responses alike; `words` in lower case."""
    different = len(set(words))
    return {
        "words": log1p(len(words)),
        "characters": log1p(len(text)),
        "lines": log1p(text.count("\n")),
        "sentences": log1p(len(_SENTENCE_END.findall(text))),
        "word_length": log1p(len(text) / max(len(words), 1)),
        "long_share": _share(sum(len(word) > 7 for word in words), words),
        "different_words": log1p(different),
        "diversity": different / sqrt(max(len(words), 1)),
        "digits": _share(sum(map(str.isdigit, text)), text),
        "numbers": log1p(len(_NUMBER.findall(text))),
        "operators": log1p(len(re.findall(r"[=+*/^<>\\$%{}\[\]|~_]", text))),
        "code": log1p(len(re.findall(r"[();]|```|\bdef\b|\breturn\b|#include", text))),
        "questions": log1p(text.count("?")),
        "bullets": log1p(len(_BULLET.findall(text))),
        "commas": log1p(text.count(",")),
        "foreign": _share(_foreign(text), text),
        "upper": _share(sum(map(str.isupper, text)), text),
    }


def _sentences(text: str) -> dict[str, float]:
    """Sentences that ask (a request or a question mark), that demand (those, and any with a
    constraint), and the others.
    """
    sentences = [sentence for sentence in _SENTENCE_GAP.split(text) if sentence.strip()]
    lengths = [len(_WORD.findall(sentence)) for sentence in sentences]
    asks = [
        bool(_REQUEST.search(sentence)) or sentence.rstrip().endswith("?") for sentence in sentences
    ]
    demands = [
        ask or bool(_CONSTRAINT.search(sentence))
        for ask, sentence in zip(asks, sentences, strict=True)
    ]
    opens = [_IMPERATIVE.match(sentence) for sentence in sentences]
    demanding = _WORD.findall(
        " ".join(
            sentence for sentence, demand in zip(sentences, demands, strict=True) if demand
        ).lower()
    )
    return {
        "asking_words": log1p(
            sum(length for length, ask in zip(lengths, asks, strict=True) if ask)
        ),
        "demanding_words": log1p(len(demanding)),
        "other_words": log1p(max(sum(lengths) - len(demanding), 0)),
        "asking_sentences": log1p(sum(asks)),
        "imperatives": log1p(sum(bool(match and _REQUEST.fullmatch(match[1])) for match in opens)),
        "longest_sentence": log1p(max(lengths, default=0)),
        "mean_sentence": log1p(sum(lengths) / max(len(lengths), 1)),
        "different_demanding_words": log1p(len(set(demanding))),
        "long_demanding_words": log1p(len({word for word in demanding if len(word) > 6})),
    }


def _share(part: float, whole: Sequence[object] | set[str]) -> float:
    return part / max(len(whole), 1)


def _foreign(text: str) -> int:
    """Characters outside ASCII."""
    return 0 if text.isascii() else sum(character > "\x7f" for character in text)
