"""One page, whole in itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from recli.bench.page import page
from tests.bench.reports import report

VOID = {"meta", "br", "path", "use", "rect", "img"}


class Checked(HTMLParser):
    """Knows what is open; collects ids, references and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta",):
            self.open.append(tag)
        self._look(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._look(attrs)

    def _look(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "")
            assert not name.startswith("on")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def shown() -> str:
    return page(report())


@pytest.fixture(scope="module")
def checked(shown: str) -> Checked:
    found = Checked()
    found.feed(shown)
    assert not found.open
    return found


def test_it_needs_no_network_and_runs_nothing(shown: str, checked: Checked) -> None:
    assert set(re.findall(r"\w+://[^\"'\s)<]+", shown)) == {"http://www.w3.org/2000/svg"}  # a name, not a reference
    assert all(reference.startswith("#") for reference in checked.references)
    assert not checked.tags & {"script", "link", "iframe", "img", "object", "form"}
    assert "@import" not in shown


def test_ids_are_unique_and_what_is_referred_to_is_there(checked: Checked) -> None:
    assert len(set(checked.ids)) == len(checked.ids) > 100
    assert {reference[1:] for reference in checked.references} <= set(checked.ids)


def test_what_rows_say_is_text(shown: str, checked: Checked) -> None:
    assert "<script" not in shown
    assert "failed: <script>alert(1)</script>" in checked.text
    assert "A <fast> CPU & more" in checked.text


def test_it_has_a_section_a_race_with_table_and_charts(shown: str) -> None:
    sections = re.findall(r"<section>.*?</section>", shown, re.DOTALL)
    assert [re.findall(r"<h2>(.*?)</h2>", section)[0] for section in sections] == [
        *("Models", "Time to an objective", "Lists", "Singular value decomposition", "Reading", "Growth"),
        "How it was measured",
    ]
    assert [section.count("<svg") for section in sections] == [2, 1, 1, 1, 1, 2, 0]
    assert [section.count("<table") for section in sections] == [1, 1, 1, 1, 1, 1, 0]
    assert all(re.search(r'<svg role="img" aria-label="[^"]+"', section) for section in sections[:-1])


def test_it_fits_a_phone(shown: str) -> None:
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in shown
    assert shown.count('<div class="scroll"') == shown.count("<table")  # wide tables scroll on their own
    for width in re.findall(r'<svg role="img"[^>]* viewBox="0 0 ([0-9.]+) ', shown):
        assert float(width) < 360  # drawn no wider than a phone, so that its text is not made smaller


def test_the_same_report_gives_the_same_bytes(shown: str) -> None:
    content: dict[str, Any] = report()
    again = page(content)
    assert re.sub(r"20\d\d-\d\d-\d\d[^<]*", "", again) == re.sub(r"20\d\d-\d\d-\d\d[^<]*", "", shown)


@pytest.mark.parametrize("failed", [["seconds > +20%: <b>"], []])
def test_gates_are_told(failed: list[str]) -> None:
    gates = {"baseline": "o<l>d.json", "gates": ["seconds > +20%"], "failed": failed, "differs": ["machine cpu a"]}
    shown = page(report(gates=gates))
    assert ("Worse than the baseline" if failed else "No worse than the baseline") in shown
    assert "o&lt;l&gt;d.json" in shown
    assert "made differently: machine cpu a" in shown
    assert "<b>" not in shown


def test_a_report_in_which_all_failed_is_a_page_too() -> None:
    content = report()
    content["rows"] = [{**row, "status": "failed: x"} for row in content["rows"]]
    shown = page(content)
    assert "<svg" not in shown
    assert "recli at rank 64: failed: x" in shown
