"""The report in columns, however wide the terminal."""

from __future__ import annotations

import pytest

from recli.bench.columns import races, table
from recli.cli.bench_table import aligned, blocks, print_report
from tests.bench.reports import report


@pytest.mark.parametrize("width", [40, 80, 120, 1000])
def test_a_table_goes_on_below_where_it_is_too_wide(width: int) -> None:
    headings, cells = table(races(report())["train"])
    parts = list(blocks([headings, *cells], width))
    assert (len(parts) == 1) == (width == 1000)
    assert [heading for part in parts for heading in part[0] if heading not in ("", "rank")] == headings[2:]
    for part in parts:
        assert [line[:2] for line in part] == [line[:2] for line in [headings, *cells]]
        assert max(map(len, aligned(part))) <= max(width, 60)  # one wide column has to stand
    assert all(max(map(len, aligned(part))) <= width for part in parts if width >= 80)


def test_numbers_are_under_each_other() -> None:
    assert aligned([["", "time"], ["recli", "1 s"], ["x", "100 s"]]) == ["        time", "recli    1 s", "x      100 s"]


def test_what_rows_say_is_no_markup(capfd: pytest.CaptureFixture[str]) -> None:
    content = report()
    content["rows"][2]["status"] = "failed: [bold]not bold[/bold] [/oops]"
    print_report(content)
    shown = capfd.readouterr().out
    assert "lenskit ials at rank 64: failed: [bold]not bold[/bold] [/oops]" in shown
    assert "time grows with the interactions to the power 1.00" in shown
    assert "\x1b" not in shown
