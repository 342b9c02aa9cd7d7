"""Histograms that are added up, and percentiles of them."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from chancy.tally.tally import bucket_of, end_of, middle_of, percentile

DISTRIBUTIONS = {
    "exponential": lambda chance: chance.expovariate(20),
    "lognormal": lambda chance: chance.lognormvariate(-3, 2),
    "even": lambda chance: chance.uniform(0.001, 60),
    "two kinds": lambda chance: chance.choice((0.002, 90.0)) * chance.uniform(0.9, 1.1),
    "hours": lambda chance: chance.uniform(3600, 90_000),
}


def exact(values, fraction):
    return sorted(values)[math.ceil(len(values) * fraction) - 1]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("fraction", [0.5, 0.95, 0.99])
def test_a_percentile_is_told_to_a_tenth(name, fraction):
    chance = random.Random(name)
    values = [DISTRIBUTIONS[name](chance) for _ in range(20_000)]
    assert percentile(Counter(map(bucket_of, values)), fraction) == pytest.approx(exact(values, fraction), rel=0.1)


def test_whatever_is_told_of_a_duration_is_within_a_tenth_of_it():
    values = [1e-6 * 1.003**n for n in range(1, 10_500)]
    assert values[-1] > 86_400 * 365
    assert all(abs(middle_of(bucket_of(value)) / value - 1) < 0.1 for value in values)


def test_histograms_of_parts_add_up_to_that_of_all():
    chance = random.Random(1)
    parts = [[chance.expovariate(n + 1) for _ in range(1000)] for n in range(3)]
    added = sum((Counter(map(bucket_of, part)) for part in parts), Counter())
    assert added == Counter(bucket_of(value) for part in parts for value in part)


def test_a_bucket_is_where_its_middle_and_its_end_are():
    assert [bucket_of(middle_of(bucket)) for bucket in range(230)] == list(range(230))
    assert bucket_of(end_of(40) * 0.9999) == 40
    assert bucket_of(0) == bucket_of(1e-7) == 0


def test_nothing_has_no_percentile():
    assert percentile({}, 0.5) is None
