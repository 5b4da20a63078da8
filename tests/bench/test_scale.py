"""How things grow."""

from __future__ import annotations

from typing import Any

import pytest

from recli.bench.scale import exponent, exponents, parse_scale
from recli.errors import UsageError


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.05, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power: float) -> None:
    sizes = [1e6, 3e6, 1e7, 3e7, 1e8]
    assert exponent(sizes, [0.003 * size**power for size in sizes]) == pytest.approx(power, abs=1e-12)


def rows(*, fixed: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"status": "ok", "pairs": n, "seconds": fixed + 1e-6 * n, "peak_rss_bytes": 1e8 + 40 * n, "base_rss_bytes": 1e8}
        for n in (10**6, 10**7, 10**8)
    ]


def test_memory_is_what_is_beyond_the_programs_own() -> None:
    found = exponents(rows())
    assert found == {name: pytest.approx(1) for name in ("seconds", "seconds_at_the_end", "memory")}


def test_the_end_shows_what_fixed_costs_hide() -> None:
    found = exponents(rows(fixed=5))
    assert found["seconds"] < 0.8
    assert found["seconds_at_the_end"] > 0.8


def test_sizes_that_failed_are_left_out() -> None:
    some = rows()
    some[1] = {"status": "failed: out of memory", "pairs": 10**7}
    assert exponents(some)["seconds"] == pytest.approx(1)
    assert exponents(some[1:]) == {}


def test_sizes_ascend_over_one_catalogue() -> None:
    assert parse_scale("3M,1M", 100_000, 10_000) == [(100_000, 10_000, 10**6), (100_000, 10_000, 3 * 10**6)]


@pytest.mark.parametrize("text", ["", "1M", "1M,", "1M,1M", "1M;2M", "a,b", "0,1M"])
def test_other_sizes_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match=r"--scale .*: expected numbers of interactions, two at least, as 1M,3M,10M"):
        parse_scale(text, 100_000, 10_000)


def test_more_than_the_catalogue_holds_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"--scale 1k,1M: expected at most an eighth of all pairs"):
        parse_scale("1k,1M", 1000, 100)
