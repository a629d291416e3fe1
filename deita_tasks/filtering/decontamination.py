"""Find conversations that repeat a text of an evaluation set.

    evaluation = EvaluationTexts(texts, OverlapRule())
    evaluation.find_overlaps([["What is ...", "It is ..."]])  # of each conversation, or None

An n-gram is a hash of word numbers; each hit is compared word by word, so no row is taken for
contaminated because two hashes are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deita_tasks.conversations import Role
from deita_tasks.filtering.words import split_words
from deita_tasks.presets import CONTAMINATED_RUN, CONTAMINATED_SHARE, NGRAM_WORDS

VERSION = 2  # raise it when the same texts would give another overlap

OverlapKind = Literal["exact", "ngrams"]
Indices = NDArray[np.int64]
Words = NDArray[np.int32]

UNKNOWN = 0  # the number of a word that no evaluation text has, and what separates texts
BLOCK = 1 << 16  # n-grams hashed at a time
CACHED_HITS = 1 << 14  # rows with the same hits, such as a template, are looked up once
MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)  # odd, so invertible


class OverlapRule(NamedTuple):
    """How much of an evaluation text a conversation may repeat.

    words: of an n-gram; 13 as in GPT-3 (arXiv 2005.14165, appendix C) and lm-evaluation-harness.
    share: of the text's n-grams, from which on a row is contaminated; half of the text as in Tülu 3
    (arXiv 2411.15124). run: words that a row repeats without a gap, from which on it is
    contaminated whatever their share; 50, of a tokenizer's tokens, in Lee et al. (arXiv 2107.06499)
    for duplicates inside longer texts.
    """

    words: int = NGRAM_WORDS
    share: float = CONTAMINATED_SHARE
    run: int = CONTAMINATED_RUN


class EvaluationText(NamedTuple):
    """What one turn of an evaluation row says. turn: from 1 on."""

    uri: str
    row: int
    turn: int
    role: Role
    text: str

    @property
    def place(self) -> str:
        """Where it stands, as FILE:ROW."""
        return f"{self.uri}:{self.row}"


class Overlap(NamedTuple):
    """What a conversation repeats of an evaluation text.

    turn: of the conversation, from 1 on, that repeats most of it. share: of the text's n-grams that
    the conversation has in any of its turns. longest_run: the most words in a row of the text all
    of whose n-grams it has.
    """

    kind: OverlapKind
    turn: int
    share: float
    longest_run: int
    evaluation: EvaluationText


class _Worst(NamedTuple):
    """The evaluation text of which most is repeated, by its number."""

    text: int
    share: float
    longest_run: int


class EvaluationTexts:
    """Evaluation texts that conversations are compared with.

    What the assistant says in fewer words than an n-gram is left out: "yes", or a number, is an
    answer to many questions. Texts without a word are left out too. Of equal texts the first, by
    file, row and turn, stands for all; so nothing depends on the order in which they come.
    """

    def __init__(self, texts: Iterable[EvaluationText], rule: OverlapRule) -> None:
        self.rule = rule
        self._numbers: dict[str, int] = {}  # of words
        self._texts: list[EvaluationText] = []
        self._by_words: dict[bytes, int] = {}  # the number of the text with exactly these words
        words = self._take_in(sorted(texts))
        self._init_ngrams(words)
        self._worst_of = lru_cache(CACHED_HITS)(self._find_worst)

    def __len__(self) -> int:
        """Return the number of distinct texts."""
        return len(self._texts)

    def _take_in(self, texts: Sequence[EvaluationText]) -> list[Words]:
        """Number the words of all texts; return those of each distinct text that counts."""
        taken = []
        for text in texts:
            spoken = split_words(text.text)
            is_short = len(spoken) < self.rule.words
            if not spoken or (is_short and text.role == "assistant"):
                continue
            for word in spoken:
                self._numbers.setdefault(word, len(self._numbers) + 1)
            words = self._number(spoken)
            if words.tobytes() not in self._by_words:
                self._by_words[words.tobytes()] = len(self._texts)
                self._texts.append(text)
                taken.append(words)
        return taken

    def _number(self, spoken: Sequence[str]) -> Words:
        """Return the number of each word: int32 (n,), UNKNOWN for one of no evaluation text."""
        numbers = map(self._numbers.get, spoken, repeat(UNKNOWN))
        return np.fromiter(numbers, np.int32, len(spoken))

    def _init_ngrams(self, texts: Sequence[Words]) -> None:
        """Number the n-grams of all texts, and list where each of them stands.

        An occurrence is a place in a row of all n-grams, text after text. `_occurrences`: int64,
        those of one n-gram after the other; `_starts`: where each n-gram's begin, and
        their end. `_places`: where its first begins in `_words`. `_text_of`: the text of each.
        """
        n = self.rule.words
        separated = [_separated(words) for words in texts]
        after_last = np.zeros(n, np.int32)
        self._words = np.concatenate([*separated, after_last])
        starts = _known_starts(self._words, n)
        lengths = np.array([len(words) for words in texts], np.int64)
        self._counts = np.maximum(lengths - n + 1, 0)
        self._text_of = np.repeat(np.arange(len(texts)), self._counts)
        for multiplier in MULTIPLIERS:
            self._powers = _powers(multiplier, n)
            hashes = self._hash(self._words, starts)
            self._occurrences = np.argsort(hashes, kind="stable")
            in_order = hashes[self._occurrences]
            is_first = np.ones(len(in_order), np.bool_)
            is_first[1:] = in_order[1:] != in_order[:-1]
            firsts = np.flatnonzero(is_first)
            self._starts = np.append(firsts, len(in_order))
            self._hashes = in_order[firsts]
            self._places = starts[self._occurrences[firsts]]
            ngrams = np.cumsum(is_first) - 1
            here, first = starts[self._occurrences], self._places[ngrams]
            if self._are_same(self._words, here, first).all():
                return
        raise AssertionError("different n-grams share a hash under every multiplier")

    def _hash(self, words: Words, starts: Indices) -> NDArray[np.uint64]:
        """Return a hash of the n-gram at each start."""
        hashes = np.empty(len(starts), np.uint64)
        windows = sliding_window_view(words, self.rule.words)
        for first in range(0, len(starts), BLOCK):
            block = slice(first, first + BLOCK)
            hashes[block] = windows[starts[block]].astype(np.uint64) @ self._powers
        return hashes

    def _are_same(self, words: Words, starts: Indices, places: Indices) -> NDArray[np.bool_]:
        """Return whether the n-gram of `words` at each start is that of the texts at its place."""
        same = np.ones(len(starts), np.bool_)
        for offset in range(self.rule.words):
            same &= words[starts + offset] == self._words[places + offset]
        return same

    # ---- conversations

    def find_overlaps(self, conversations: Sequence[Sequence[str]]) -> list[Overlap | None]:
        """Return the worst overlap that the rule forbids of each conversation, or None.

        conversations: the texts of the turns of each. A turn that is an evaluation text as a whole
        is worse than one that holds parts of it; then the share decides, then the longest run. Of
        equal ones, it is the first evaluation text. It does not depend on the other conversations.
        """
        block = self._read(conversations)
        overlaps: list[Overlap | None] = []
        for start, end in zip(block.turns_of[:-1], block.turns_of[1:], strict=True):
            turns = range(int(start), int(end))
            exact = self._exact_overlap(block, turns)
            overlaps.append(exact or self._overlap(block, turns))
        return overlaps

    def _read(self, conversations: Sequence[Sequence[str]]) -> _Block:
        """Return the words of all turns one after the other, and the evaluation n-grams in them.

        An empty word, never known, ends each turn, so that no n-gram crosses turns.
        """
        spoken = [split_words(turn) for turns in conversations for turn in turns]
        words = self._number([word for turn in spoken for word in (*turn, "")])
        ends = np.cumsum([0, *(len(turn) + 1 for turn in spoken)])
        starts, ngrams = self._hits(words)
        turn_of_hit = np.searchsorted(ends, starts, side="right") - 1
        every_turn = np.arange(len(ends))
        return _Block(
            words=words,
            ends=ends,
            turns_of=np.cumsum([0, *map(len, conversations)]),
            ngrams=ngrams,
            hits_of=np.searchsorted(turn_of_hit, every_turn),
        )

    def _hits(self, words: Words) -> tuple[Indices, Indices]:
        """Return where evaluation n-grams begin in `words`, ascending, and their numbers."""
        starts = _known_starts(words, self.rule.words)
        if not len(starts) or not len(self._hashes):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        hashes = self._hash(words, starts)
        ngrams = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        is_hit = self._hashes[ngrams] == hashes
        starts, ngrams = starts[is_hit], ngrams[is_hit]
        is_hit = self._are_same(words, starts, self._places[ngrams])
        return starts[is_hit], ngrams[is_hit]

    def _exact_overlap(self, block: _Block, turns: range) -> Overlap | None:
        """Return the longest evaluation text that is a whole turn."""
        matches = []
        for turn in turns:
            words = block.words_of(turn)
            text = self._by_words.get(words.tobytes())
            if text is not None:
                matches.append((-len(words), text, turn))
        if not matches:
            return None
        length, text, turn = min(matches)
        return Overlap("exact", turn - turns[0] + 1, 1.0, -length, self._texts[text])

    def _overlap(self, block: _Block, turns: range) -> Overlap | None:
        """Return the evaluation text of which most n-grams stand in a conversation."""
        end = turns[-1] + 1
        hits = np.unique(block.hits(turns[0], end))
        worst = self._worst_of(hits.tobytes()) if len(hits) else None
        if worst is None:
            return None
        counts = []
        for turn in turns:
            of_turn = np.unique(block.hits(turn, turn + 1))
            counts.append(self._count(of_turn, worst.text))
        turn = int(np.argmax(counts)) + 1  # the first of several
        evaluation = self._texts[worst.text]
        return Overlap("ngrams", turn, worst.share, worst.longest_run, evaluation)

    def _find_worst(self, hits: bytes) -> _Worst | None:
        """Return the text of which most is among the n-grams `hits`, if the rule forbids it."""
        occurrences = self._occurrences_of(np.frombuffer(hits, np.int64))
        texts = self._text_of[occurrences]
        first = np.flatnonzero(np.diff(texts, prepend=-1))
        numbers = texts[first]
        shares = np.diff(first, append=len(texts)) / self._counts[numbers]
        runs = _longest_runs(occurrences, texts, first) + self.rule.words - 1
        has_share = shares >= self.rule.share
        has_run = runs >= self.rule.run
        over = np.flatnonzero(has_share | has_run)
        if not len(over):
            return None
        worst_first = np.lexsort((numbers[over], -runs[over], -shares[over]))
        worst = over[worst_first[0]]
        return _Worst(int(numbers[worst]), float(shares[worst]), int(runs[worst]))

    def _count(self, ngrams: Indices, text: int) -> int:
        """Return how many n-grams of a text are among these."""
        occurrences = self._occurrences_of(ngrams)
        texts = self._text_of[occurrences]
        return int(np.count_nonzero(texts == text))

    def _occurrences_of(self, ngrams: Indices) -> Indices:
        """Return where these n-grams stand in the evaluation texts, ascending."""
        starts, ends = self._starts[ngrams], self._starts[ngrams + 1]
        pieces = []
        for start, end in zip(starts, ends, strict=True):
            pieces.append(self._occurrences[start:end])
        nothing = np.empty(0, np.int64)
        occurrences = np.concatenate([nothing, *pieces])
        return np.sort(occurrences)


class _Block(NamedTuple):
    """Conversations as word numbers, with an unknown word behind each turn, and their hits.

    ends: where each turn begins in `words`, and their end. turns_of: the same of each conversation
    among the turns. ngrams: of the evaluation, in the order in which they stand in `words`.
    hits_of: where those of each turn begin, and their end.
    """

    words: Words
    ends: Indices
    turns_of: Indices
    ngrams: Indices
    hits_of: Indices

    def words_of(self, turn: int) -> Words:
        """Return the numbers of a turn's words: int32 (n,), without the separator behind it."""
        return self.words[self.ends[turn] : self.ends[turn + 1] - 1]

    def hits(self, first: int, end: int) -> Indices:
        """Return the n-grams in the turns from `first` to before `end`: int64, repeats included."""
        return self.ngrams[self.hits_of[first] : self.hits_of[end]]


def _separated(words: Words) -> Words:
    """Return the words with a separator behind them, so that no n-gram crosses texts."""
    return np.append(words, np.int32(UNKNOWN))


def _powers(multiplier: int, count: int) -> NDArray[np.uint64]:
    """Return the powers 0 to count - 1 of the multiplier modulo 2**64: uint64 (count,)."""
    powers = [pow(multiplier, exponent, 1 << 64) for exponent in range(count)]
    return np.array(powers, np.uint64)


def _known_starts(words: Words, n: int) -> Indices:
    """Return where n words begin that are all known, ascending."""
    if len(words) < n:
        return np.empty(0, np.int64)
    unknown = np.concatenate([[0], np.cumsum(words == UNKNOWN)])
    return np.flatnonzero(unknown[n:] == unknown[:-n])


def _longest_runs(occurrences: Indices, texts: Indices, first: Indices) -> Indices:
    """Return the most consecutive occurrences in each text, whose own begin at `first`."""
    is_start = np.ones(len(occurrences), np.bool_)
    is_start[1:] = (np.diff(occurrences) != 1) | (np.diff(texts) != 0)
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=len(occurrences))
    run_of_text = np.searchsorted(starts, first)
    return np.maximum.reduceat(lengths, run_of_text)
