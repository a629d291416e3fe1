"""Strata: how a mix divides a budget, and which rows of which stratum are kept."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.errors import UsageError
from deita_tasks.selecting import load_selector
from deita_tasks.selecting.mix import apportion, limit_each, parse_mix, share_evenly
from deita_tasks.selecting.strata import Places, Strata, filling_rows


def limits(mix: str, budget: int, **rows: int) -> dict[str, tuple[int, int]]:
    """The least and the most rows of each value."""
    values = [name.lstrip("_") for name, count in rows.items() for _ in range(count)]
    strata = parse_mix(mix).divide(values, budget)
    pairs = zip(strata.minimum.tolist(), strata.maximum.tolist(), strict=True)
    return dict(zip(strata.names, pairs, strict=True))


# ---- largest remainder


def test_the_largest_remainder_by_hand() -> None:
    """Hamilton's rule on 10 places: 4.7, 3.2 and 2.1 have whole parts 4, 3, 2; .7 is largest."""
    weights = {"a": Fraction(47), "b": Fraction(32), "c": Fraction(21)}
    many = dict.fromkeys(weights, 99)
    assert apportion(10, weights, many) == {"a": 5, "b": 3, "c": 2}


def test_equal_remainders_go_by_name() -> None:
    weights = dict.fromkeys("cab", Fraction(1))
    assert apportion(4, weights, dict.fromkeys("abc", 99)) == {"a": 2, "b": 1, "c": 1}
    assert apportion(5, weights, dict.fromkeys("abc", 99)) == {"a": 2, "b": 2, "c": 1}


def test_a_value_that_runs_dry_leaves_its_places_in_proportion() -> None:
    """12 places at 1:2:3 are 2, 4, 6. With 3 rows of c, 9 are left for 1:2, which are 3 and 6."""
    weights = {"a": Fraction(1), "b": Fraction(2), "c": Fraction(3)}
    assert apportion(12, weights, {"a": 99, "b": 99, "c": 3}) == {"a": 3, "b": 6, "c": 3}
    # Then b, with 5, runs dry too.
    assert apportion(12, weights, {"a": 99, "b": 5, "c": 3}) == {"a": 4, "b": 5, "c": 3}
    assert apportion(12, weights, {"a": 2, "b": 5, "c": 3}) == {"a": 2, "b": 5, "c": 3}


amounts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1)


@given(amounts, st.integers(0, 40), st.data())
def test_places_add_up_and_nothing_starves(
    weights: dict[str, int], places: int, data: st.DataObject
) -> None:
    capacity = {name: data.draw(st.integers(0, 30)) for name in weights}
    quotas = apportion(places, {name: Fraction(w) for name, w in weights.items()}, capacity)
    assert sum(quotas.values()) == min(places, sum(capacity.values()))
    for name, quota in quotas.items():
        share = places * weights[name] // sum(weights.values())
        assert min(share, capacity[name]) <= quota <= capacity[name]


# ---- the text of a mix


def test_shares_counts_and_the_rest() -> None:
    assert limits("topic=a:0.3,b:0.3,*:0.4", 10, a=9, b=9, c=9) == {
        "a": (3, 3),
        "b": (3, 3),
        "*": (4, 4),
    }
    # A number without a point is rows: 1 is one row, 1.0 is the whole budget.
    assert limits("topic=a:1", 10, a=9, c=20) == {"a": (1, 1), "*": (0, 10)}
    assert limits("topic=a:1.0", 10, a=99, c=9) == {"a": (10, 10), "*": (0, 0)}
    assert limits("topic=a:2..0.5,b:..3", 10, a=9, b=9, c=9) == {
        "a": (2, 5),
        "b": (0, 3),
        "*": (0, 10),
    }


def test_rows_that_are_missing_go_to_the_others() -> None:
    assert limits("topic=a:0.5,b:0.25,*:0.25", 8, a=1, b=9, c=9)["b"] == (4, 4)
    # A minimum reserves no more than there is.
    assert limits("topic=a:5..", 8, a=2, c=9)["a"] == (2, 8)


def test_a_name_with_a_comma_or_a_colon() -> None:
    values = ["x, y", "s3://z/a.jsonl", "c"]
    mix = parse_mix('topic="x, y":1, s3://z/a.jsonl:1')
    strata = mix.divide(values, 3)
    assert list(strata.names) == ["x, y", "s3://z/a.jsonl", "*"]
    assert strata.codes.tolist() == [0, 1, 2]


def test_the_end_of_a_path_names_a_file() -> None:
    uris = ["/data/math.jsonl", "/data/code.jsonl", "/data/aftermath.jsonl"]
    assert parse_mix("source_uri=math.jsonl:0.5").divide(uris, 2).codes.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("mix", "problem"),
    [
        ("topic", "expected COLUMN=VALUE:SHARE"),
        ("topic=", "expected COLUMN=VALUE:SHARE"),
        ("topic=a", "'a': expected VALUE:SHARE"),
        ("topic=a:0.5,a:0.5", "'a' occurs twice"),
        ("topic=a:1.5", "'1.5': expected a share of the budget"),
        ("topic=a:-1", "'-1': expected a share"),
        ("topic=a:half", "'half': expected a share"),
        ("topic=a:1/2", "'1/2': expected a share"),
        ("topic=a:0.6,b:0.6", "add up to 12 rows, more than the budget of 10"),
        ("topic=a:0.3,*:0.3", "add up to 6 rows, fewer than the budget of 10"),
    ],
)
def test_a_wrong_mix_is_refused(mix: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        load_selector("top_score", budget=10, mix=mix)


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="strata and mix: expected only one"):
        load_selector("top_score", budget=1, mix="a=b:1", strata="a")
    with pytest.raises(UsageError, match="per_stratum and mix"):
        load_selector("top_score", budget=1, mix="a=b:1", per_stratum=2)
    with pytest.raises(UsageError, match="mix and clusters"):
        load_selector("top_score", budget=1, mix="a=b:1", clusters=2)


def test_a_value_that_no_row_has() -> None:
    with pytest.raises(UsageError, match="no row has topic = 'maths'; it is code, math"):
        parse_mix("topic=maths:0.5").divide(["math", "code"], 2)


# ---- places


def naive(codes: list[int], minimum: list[int], maximum: list[int], budget: int) -> list[int]:
    """The rows that are kept if they come in this order: one by one, by the rule itself."""
    counts = [0] * len(minimum)
    kept: list[int] = []
    for row, code in enumerate(codes):
        reserved = sum(max(0, least - count) for least, count in zip(minimum, counts, strict=True))
        is_reserved = counts[code] < minimum[code]
        has_free_place = budget - len(kept) > reserved
        if counts[code] < maximum[code] and (is_reserved or has_free_place):
            counts[code] += 1
            kept.append(row)
    return kept


@st.composite
def divided(draw: st.DrawFn) -> tuple[Strata, int]:
    count = draw(st.integers(1, 4))
    codes = draw(st.lists(st.integers(0, count - 1), max_size=30))
    minimum = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    maximum = [least + draw(st.integers(0, 5)) for least in minimum]
    budget = sum(minimum) + draw(st.integers(0, 8))
    numbers = np.array(codes, np.int64)
    rows = np.bincount(numbers, minlength=count)
    names = [str(stratum) for stratum in range(count)]
    return Strata(numbers, names, np.array(minimum), np.array(maximum), rows), max(1, budget)


@given(divided(), st.integers(0, 30))
def test_places_are_given_as_if_rows_came_one_by_one(case: tuple[Strata, int], split: int) -> None:
    strata, budget = case
    codes = strata.codes
    limit = strata.minimum.tolist(), strata.maximum.tolist()
    kept = naive(codes.tolist(), *limit, budget)
    assert np.flatnonzero(Places(strata, budget).admit(codes)).tolist() == kept
    # In two pieces.
    places = Places(strata, budget)
    first = codes[:split]
    admitted = np.flatnonzero(places.admit(first))
    places.take(first[admitted])
    later = split + np.flatnonzero(places.admit(codes[split:]))
    assert [*admitted.tolist(), *later.tolist()] == kept


@given(divided())
def test_the_row_that_fills_a_stratum(case: tuple[Strata, int]) -> None:
    """A stratum is full after the row from which on none of its rows would be kept."""
    strata, budget = case
    limit = strata.minimum.tolist(), strata.maximum.tolist()
    codes = strata.codes.tolist()
    kept = naive(codes, *limit, budget)
    kept_codes = [codes[row] for row in kept]
    ends = filling_rows(strata, budget, np.array(kept, np.int64))
    for stratum in range(len(strata.names)):
        takes = [
            len(naive([*kept_codes[:count], stratum], *limit, budget)) > count
            for count in range(len(kept) + 1)
        ]
        end = takes.index(False) - 1 if False in takes else None
        assert ends.get(stratum) == end
    places = Places(strata, budget)
    for code in kept_codes:
        was_full = places.full()
        fills = bool(places.fill(np.array([code]))[0])
        places.take(np.array([code]))
        assert fills == (places.full() & ~was_full).any()


# ---- selections


values = st.lists(st.sampled_from("abc"), min_size=3, max_size=40).filter(
    lambda labels: {"a", "b"} <= set(labels)
)
mixes = st.sampled_from(
    ["t=a:0.5,b:0.5", "t=a:0.3,b:0.3,*:0.4", "t=a:0.25", "t=a:0.2..0.4,*:0.1..", "t=b:1,*:0.2.."]
)


@pytest.mark.parametrize("name", ["top_score", "random", "k_center", "facility_location"])
@given(labels=values, mix=mixes, budget=st.integers(4, 20), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_mix_fills_the_budget_and_starves_nothing(
    name: str, labels: list[str], mix: str, budget: int, seed: int
) -> None:
    """These strategies reject no row, so whatever a stratum lacks goes to the others."""
    random = np.random.default_rng(seed)
    ids = [f"{i:02d}" for i in range(len(labels))]
    rows = random.standard_normal((len(ids), 4)).astype(np.float32)
    selector = load_selector(name, budget=budget, mix=mix)
    result = selector.select(ids, random.random(len(ids)), rows, labels)
    strata = selector.divide(labels)
    kept = np.bincount(strata.codes[[int(id) for id in result.kept]], minlength=len(strata.names))
    # A range may end below what is there; an exact amount grows where another runs dry.
    assert kept.sum() == min(budget, np.minimum(strata.rows, strata.maximum).sum())
    assert (kept >= np.minimum(strata.minimum, strata.rows)).all()
    assert (kept <= strata.maximum).all()


@given(values, st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_budgets_nest_under_limits(
    labels: list[str], smaller: int, larger: int, limit: int
) -> None:
    """As docs/how-to/mixes.md promises of per_stratum and of mixes of maxima in rows."""
    smaller, larger = sorted((smaller, larger))
    ids = [f"{i:02d}" for i in range(len(labels))]
    scores = np.arange(len(ids)) % 5
    for options in ({"per_stratum": limit}, {"mix": f"t=a:..{limit}"}):
        kept = [
            load_selector("top_score", budget=budget, **options)
            .select(ids, scores, None, labels)
            .kept
            for budget in (smaller, larger)
        ]
        assert kept[0] == kept[1][:smaller]


def test_limits_and_even_shares() -> None:
    labels = ["x", "y", "x", "z", "x"]
    assert limit_each(labels, 2).maximum.tolist() == [2, 2, 2]
    even = share_evenly(labels, 4)  # 4/3 each: one more for x by name
    assert dict(zip(even.names, even.maximum.tolist(), strict=True)) == {"x": 2, "y": 1, "z": 1}
