"""Features of the mini scorers: counts of words, requests, constraints, repetitions.

Counts enter as log(1 + count): equal ratios count alike. Text pasted into an instruction adds words
and no demands, so sentences that ask for something are counted apart from the others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Sequence
from itertools import pairwise
from math import log1p, sqrt

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Matches only where a run begins: otherwise a long run would be read again from every dot.
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+(?:\s|$)")
_SENTENCE_GAP = re.compile(r"(?<=[.!?;])\s+|\n+")
# Within its line: otherwise blank lines would be read again from every one.
_BULLET = re.compile(r"(?m)^[^\S\n]*(?:[-*•]|\d+[.)])\s")
_NUMBER = re.compile(r"\d+")
_OPTION = re.compile(r"(?:^|\s)\(?[A-E][).:]\s")
_QUOTE = re.compile(r'["“”«»]')
_OPERATOR = re.compile(r"[=+*/^<>\\$%{}\[\]|~_]")
_CODE = re.compile(r"[();]|```|\bdef\b|\breturn\b|#include")
_REQUEST = re.compile(
    r"\b(?:analy[sz]e|argue|assess|calculate|classify|compare|compose|consider|contrast|convert|"
    r"create|critique|debate|define|demonstrate|derive|describe|design|determine|develop|devise|"
    r"discuss|draft|elaborate|estimate|evaluate|examine|explain|explore|find|formulate|generate|"
    r"give|highlight|identify|illustrate|implement|include|infer|interpret|investigate|justify|"
    r"list|optimi[sz]e|outline|plan|propose|prove|provide|recommend|rewrite|show|simulate|solve|"
    r"specify|suggest|summari[sz]e|support|tell|translate|write)\b",
    re.IGNORECASE,
)
_CONSTRAINT = re.compile(
    r"\b(?:additionally|also|assum\w+|at least|at most|avoid|based on|besides|both|but|"
    r"constraint\w*|do not|don't|each|ensur\w+|every|exactly|except|following|furthermore|given|"
    r"however|if|in addition|incorporat\w+|limit\w*|make sure|maximum|minimum|moreover|must|"
    r"no more than|not|only|requir\w+|should|step by step|style|such that|suppose|then|under|"
    r"unless|using|while|with|within|without)\b",
    re.IGNORECASE,
)
_IMPERATIVE = re.compile(
    r"^\W*(?:please\s+|now\s+|then\s+|also,?\s+|additionally,?\s+|finally,?\s+|can you\s+|"
    r"could you\s+)*([a-z]+)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:as an ai|i'?m sorry|i am sorry|i apologi[sz]e|i can(?:no|')t|i can not|i am "
    r"unable|i'm unable|unfortunately|language model)\b",
    re.IGNORECASE,
)
_ROLE = re.compile(r"(?i)\b(?:user|human|assistant|instruction|input|response|output)\s*:")
_LINKING = set(
    _WORD.findall(
        "however because therefore example first second finally additionally instance such overall "
        "conclusion"
    )
)
_FUNCTION_WORDS = set(
    _WORD.findall(
        "a an the of to in is are was were be been it its this that these those and or but for on "
        "with as at by from i you he she they we your my our their his her me him them not no do "
        "does did have has had will would can could should may might there here what which who how "
        "why when where if then so than too very just about into over also more most some any all"
    )
)
_FACT_WORDS = set(_WORD.findall("what who when where which is are do does did can name"))


def instruction_features(text: str) -> dict[str, float]:
    """Return the features of an instruction, by name, in the order of a head's arrays.

    Logarithms of counts, shares, and 0 or 1 for what is there or not. An empty text has them all.
    """
    words = _lower_words(text)
    lines = [line for line in text.split("\n") if line.strip()] or [""]
    first_word = words[0] if words else ""
    requests = _REQUEST.findall(text)
    constraints = _CONSTRAINT.findall(text)
    return {
        **_common_features(text, words),
        "options": _log_count(_OPTION.findall(text)),
        "quotes": _log_count(_QUOTE.findall(text)),
        "conjunctions": log1p(words.count("and") + words.count("or")),
        "requests": _log_count(requests),
        "different_requests": _log_count({word.lower() for word in requests}),
        "constraints": _log_count(constraints),
        "different_constraints": _log_count({word.lower() for word in constraints}),
        "constraint_density": _log_count(constraints) - _log_count(words),
        "starts_what": float(first_word in _FACT_WORDS),
        "starts_how": float(first_word in ("how", "why")),
        "asks_how": float("how" in words or "why" in words),
        "first_line": _log_count(_WORD.findall(lines[0])),
        "last_line": _log_count(_WORD.findall(lines[-1])),
        "long_words": log1p(sum(len(word) > 7 for word in words)),
        "different_long_words": _log_count({word for word in words if len(word) > 6}),
        "words_up_to_100": log1p(min(len(words), 100)),
        **_sentence_features(text),
    }


def response_features(instruction: str, response: str) -> dict[str, float]:
    """Return the features of a response, by name, in the order of a head's arrays.

    As `instruction_features`, and what it has in common with its instruction. Empty texts have them
    all.
    """
    words = _lower_words(response)
    prompt_words = _lower_words(instruction)
    start = response.lstrip()[:1]
    end = response.rstrip()[-1:]
    foreign = _share(_count_foreign(response), response)
    prompt_foreign = _share(_count_foreign(instruction), instruction)
    return {
        **_common_features(response, words),
        "words_squared": _log_count(words) ** 2 / 5,
        "words_over_90": max(0.0, _log_count(words) - 4.5),
        "words_over_245": max(0.0, _log_count(words) - 5.5),
        "few_words": float(len(words) <= 3),
        **_repetition_features(response, words),
        "ends_well": float(bool(end) and end in ".!?\"”)`'*:"),
        "ends_open": float(bool(end) and end in ",;-("),
        "ends_in_word": float(end.isalnum() and len(words) > 30),
        "starts_upper": float(start.isupper()),
        "exclamations": log1p(response.count("!")),
        "refuses": float(bool(_REFUSAL.search(response))),
        "starts_refusing": float(bool(_REFUSAL.search(response[:150]))),
        "says_i": log1p(sum(word in ("i", "my", "me", "i'm") for word in words)),
        "says_you": log1p(sum(word in ("you", "your") for word in words)),
        **_overlap_features(prompt_words, words),
        "contained": float(response.strip().lower() in instruction.lower()),
        "other_script": abs(foreign - prompt_foreign),
        "words_beyond_asked": _log_count(words) - _log_count(prompt_words),
        "roles": float(bool(_ROLE.search(response))),
        "linking": log1p(sum(word in _LINKING for word in words)),
        "paragraphs": float("\n\n" in response),
        "markdown": float("**" in response or "#" in response),
    }


def _common_features(text: str, words: Sequence[str]) -> dict[str, float]:
    """Return what is counted in instructions and responses alike; `words` in lower case.

    Counts as logarithms, and shares of the words or the characters.
    """
    different = len(set(words))
    return {
        "words": _log_count(words),
        "characters": log1p(len(text)),
        "lines": log1p(text.count("\n")),
        "sentences": _log_count(_SENTENCE_END.findall(text)),
        "word_length": log1p(len(text) / max(len(words), 1)),
        "long_share": _share(sum(len(word) > 7 for word in words), words),
        "different_words": log1p(different),
        "diversity": different / sqrt(max(len(words), 1)),
        "digits": _share(sum(map(str.isdigit, text)), text),
        "numbers": _log_count(_NUMBER.findall(text)),
        "operators": _log_count(_OPERATOR.findall(text)),
        "code": _log_count(_CODE.findall(text)),
        "questions": log1p(text.count("?")),
        "bullets": _log_count(_BULLET.findall(text)),
        "commas": log1p(text.count(",")),
        "foreign": _share(_count_foreign(text), text),
        "upper": _share(sum(map(str.isupper, text)), text),
    }


def _repetition_features(text: str, words: Sequence[str]) -> dict[str, float]:
    """Return how much a text repeats itself: its lines, its runs of three words, its bytes.

    "compressed" is the size under zlib relative to the text's: low for repetitions, and above 1 for
    a few words. A lone surrogate, which UTF-8 does not allow, is no error.
    """
    triples = list(zip(words, words[1:], words[2:], strict=False))
    repeated = _share(len(triples) - len(set(triples)), triples)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    raw = text.encode("utf-8", "surrogatepass")
    return {
        "repeated_lines": _share(len(lines) - len(set(lines)), lines),
        "repeated": repeated,
        "repetitions": log1p(repeated * len(words)),
        "compressed": len(zlib.compress(raw)) / max(len(raw), 1),
    }


def _overlap_features(prompt_words: Sequence[str], words: Sequence[str]) -> dict[str, float]:
    """Return how much a response has in common with its instruction, as shares from 0 to 1.

    "covered": of the instruction's own words, those in the response. "on_topic": of the response's,
    those in the instruction. "copied": of its neighbouring words, those that the instruction has
    too.
    """
    topic = set(prompt_words) - _FUNCTION_WORDS
    content = [word for word in words if word not in _FUNCTION_WORDS]
    doubles = list(pairwise(words))
    prompt_doubles = set(pairwise(prompt_words))
    return {
        "covered": _share(len(topic & set(words)), topic),
        "on_topic": _share(sum(word in topic for word in content), content),
        "copied": _share(sum(double in prompt_doubles for double in doubles), doubles),
    }


def _sentence_features(text: str) -> dict[str, float]:
    """Return features of the sentences that ask, of those that demand, and of the others.

    A sentence asks if it has a request or ends in a question mark. It demands if it asks or has a
    constraint.
    """
    sentences = [sentence for sentence in _SENTENCE_GAP.split(text) if sentence.strip()]
    lengths = [len(_WORD.findall(sentence)) for sentence in sentences]
    asking_lengths: list[int] = []
    demanding_sentences: list[str] = []
    imperatives = 0
    for sentence, length in zip(sentences, lengths, strict=True):
        asks = bool(_REQUEST.search(sentence)) or sentence.rstrip().endswith("?")
        if asks:
            asking_lengths.append(length)
        if asks or _CONSTRAINT.search(sentence):
            demanding_sentences.append(sentence)
        verb = _IMPERATIVE.match(sentence)
        if verb and _REQUEST.fullmatch(verb[1]):
            imperatives += 1
    demanding_words = _WORD.findall(" ".join(demanding_sentences).lower())
    return {
        "asking_words": log1p(sum(asking_lengths)),
        "demanding_words": _log_count(demanding_words),
        "other_words": log1p(max(sum(lengths) - len(demanding_words), 0)),
        "asking_sentences": _log_count(asking_lengths),
        "imperatives": log1p(imperatives),
        "longest_sentence": log1p(max(lengths, default=0)),
        "mean_sentence": log1p(sum(lengths) / max(len(lengths), 1)),
        "different_demanding_words": _log_count(set(demanding_words)),
        "long_demanding_words": _log_count({word for word in demanding_words if len(word) > 6}),
    }


def _lower_words(text: str) -> list[str]:
    """Return the words in lower case, in order; an apostrophe within a word is part of it."""
    return [word.lower() for word in _WORD.findall(text)]


def _log_count(items: Collection[object]) -> float:
    """Return log(1 + number of items), so that equal ratios of counts are equally far apart."""
    return log1p(len(items))


def _share(part: float, whole: Collection[object]) -> float:
    """Return `part` relative to the number of items in `whole`; `part` itself if it is empty."""
    return part / max(len(whole), 1)


def _count_foreign(text: str) -> int:
    """Return the number of characters outside ASCII."""
    return 0 if text.isascii() else sum(character > "\x7f" for character in text)
