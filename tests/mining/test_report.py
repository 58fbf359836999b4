"""The report: known counts, the estimate of false negatives, and a page that needs and runs nothing else."""

import json
import math
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.config import MineSettings
from causalneg.mining.filters import decide
from causalneg.mining.page import REASONS, page
from causalneg.mining.report import Example, MiningReport, Tally
from causalneg.records import Candidate, Relation

SETTINGS = MineSettings(near_duplicate=None, num_negatives=2)


def candidate(query: str, name: str, score: float, rank: int | None = 1, **more: Any) -> Candidate:
    return Candidate(query_id=query, passage_id=name, dense_rank=rank, dense_score=score, **more)


def positive(query: str, name: str, score: float, rank: int | None = None) -> Candidate:
    return candidate(query, name, score, rank, relation=Relation.POSITIVE)


def reported(queries: list[list[Candidate]], settings: MineSettings = SETTINGS) -> MiningReport:
    scores = [c.score for candidates in queries for c in candidates]
    tally = Tally(settings, 0, min(scores), max(scores))
    for candidates in queries:
        tally.add(candidates, decide(candidates, {}, settings, 0), {})
    return tally.report()


FULL = [
    positive("full", "p", 0.8, 1),
    candidate("full", "a", 0.5, 2, bm25_rank=1),
    candidate("full", "b", 0.4, None, bm25_rank=2),
    candidate("full", "c", 0.3, 4),
]
SHORT = [
    positive("short", "p", 0.6),
    candidate("short", "near", 0.7, 1),
    candidate("short", "nearer", 0.9, 2),
    candidate("short", "given", 0.2, None, relation=Relation.NEGATIVE),
]
EMPTY = [positive("empty", "p", 0.6)]


def test_known_counts() -> None:
    report = reported([FULL, SHORT, EMPTY])
    assert report.model_dump(exclude={"scores", "above_positives"}) == {
        "queries": 3,
        "wanted": 2,
        "candidates": 9,
        "kept": 3,
        "short": 2,
        "short_because": {"relative_margin": 1, "nothing_found": 1},
        "verdicts": {"accepted": 3, "known_positive": 3, "num_negatives": 1, "relative_margin": 2},
        "kept_per_query": {0: 1, 1: 1, 2: 1},
        "found_by": {"bm25 and dense": 1, "bm25": 1, "judged": 1},
        "left_out": None,
    }


def test_histograms_share_edges_and_lose_nothing() -> None:
    scores = reported([FULL, SHORT, EMPTY]).scores
    assert (scores.edges[0], scores.edges[-1]) == (0.2, 0.9)
    assert (sum(scores.positives), sum(scores.candidates), sum(scores.kept)) == (3, 6, 3)
    at = scores.positives.index(1)  # of 0.8; there are two at 0.6
    assert scores.edges[at] <= 0.8 <= scores.edges[at + 1]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.floats(-1e3, 1e3))
def test_every_score_is_counted(scores: list[float], top: float) -> None:
    found = [candidate("q", str(n), score, n + 1) for n, score in enumerate(scores)]
    report = reported([[*found, positive("q", "p", top)]])
    assert sum(report.scores.candidates) == len(scores)
    assert sum(report.scores.positives) == 1
    assert sum(report.scores.kept) == report.kept
    assert sum(report.verdicts.values()) == report.candidates == len(scores) + 1


def several(query: str, rank: int | None) -> list[Candidate]:
    return [positive(query, name, 0.5, rank) for name in "ab"]


def test_one_known_positive_of_each_query_is_left_out() -> None:
    # Without a margin what was found is taken: of the first query whichever is drawn, of the others none.
    no_margin = SETTINGS.model_copy(update={"relative_margin": None})
    left_out = reported([several("found", 1), *(several(f"hidden {n}", None) for n in range(3))], no_margin).left_out
    assert left_out is not None
    assert (left_out.positives, left_out.taken) == (4, 1)
    # Wilson's interval by its formula, z for 95 %.
    n, share, z = 4, 0.25, 1.959963984540054
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (left_out.low, left_out.high) == pytest.approx((middle - half, middle + half))


def test_a_positive_that_is_left_out_meets_the_filters() -> None:
    # "near" is too near the 0.8 of "best", "best" scores above "near", and "far" is taken: whichever is drawn, one in
    # three.
    queries = [
        [positive(q, "best", 0.8, 1), positive(q, "near", 0.79, 2), positive(q, "far", 0.3, 3)]
        for q in map(str, range(300))
    ]
    left_out = reported(queries).left_out
    assert left_out is not None
    assert left_out.positives == 300
    assert left_out.taken == pytest.approx(100, abs=30)


def test_the_share_above_the_lowest_positives() -> None:
    # 100 positives at 0.40, 0.41, … 1.39: the lowest 5 % end at 0.44 or 0.45, and 6 of the 20 negatives score above.
    queries = [[positive(str(n), "p", 0.4 + n / 100)] for n in range(100)]
    # A query whose positive scores high keeps them all; it is the 101st.
    kept = [candidate("all", f"n{n}", 0.0 if n < 14 else 0.6, n + 1) for n in range(20)]
    report = reported(
        [*queries, [*kept, positive("all", "p", 1.4)]], MineSettings(near_duplicate=None, num_negatives=20)
    )
    assert report.kept == 20
    assert report.above_positives == pytest.approx(6 / 20)


def test_the_order_of_queries_decides_nothing() -> None:
    one, other = reported([FULL, SHORT, EMPTY]), reported([EMPTY, SHORT, FULL])
    assert one == other


def test_memory_does_not_grow_with_the_queries() -> None:
    def size(queries: int) -> int:
        return len(reported([FULL, SHORT] * queries).model_dump_json())

    assert size(200) < size(1) + 100


def test_a_report_is_read_back_from_json() -> None:
    report = reported([FULL, SHORT, EMPTY])
    assert MiningReport.model_validate(json.loads(report.model_dump_json())) == report


class Seen(HTMLParser):
    """Collects tags, the addresses they point to, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.addresses += [value or "" for name, value in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = '<script>alert("1")</script> & <img src="https://example.org/x.png">'


def test_the_page_escapes_texts_and_loads_nothing() -> None:
    example = Example(
        query=HOSTILE, positives=[HOSTILE], kept=[(0.5, HOSTILE)], rejected=[("relative_margin", 0.79, HOSTILE)]
    )
    html = page(reported([FULL, SHORT, EMPTY]), [example])
    seen = Seen(html)
    assert {"script", "img", "iframe", "link", "object"}.isdisjoint(seen.tags)
    assert all(address.startswith("#") for address in seen.addresses)
    assert seen.text.count(HOSTILE) == 4
    assert "url(http" not in html
    assert "@import" not in html


def test_the_page_says_what_was_counted() -> None:
    text = " ".join(Seen(page(reported([FULL, SHORT, EMPTY]), [])).text.split())
    assert "3 negatives were kept for 3 queries, out of 9 candidates. 2 queries have fewer than the 2" in text
    assert "No query has several positives" in text


def test_the_page_says_how_false_negatives_were_estimated() -> None:
    no_margin = SETTINGS.model_copy(update={"relative_margin": None})
    text = " ".join(Seen(page(reported([several("q", 1), several("hidden", None)], no_margin), [])).text.split())
    assert re.search(r"each of 2 queries .* taken 50\.0 % of them .*\(9\.5 to 90\.5 % with 95 %", text)


@pytest.mark.parametrize("queries", [[EMPTY], [[positive("q", "p", 0.5), candidate("q", "n", 0.5)]]])
def test_a_page_of_almost_nothing(queries: list[list[Candidate]]) -> None:
    html = page(reported(queries), [])
    (svg,) = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    ElementTree.fromstring(svg)  # noqa: S314 - our own


def test_every_reason_has_its_words() -> None:
    other_names = {"search", "sampling", "range_min", "range_max", "near_duplicate"}
    assert set(MineSettings.model_fields) - other_names <= set(REASONS)


def test_the_chart_is_the_same_in_every_run() -> None:
    report = reported([FULL, SHORT, EMPTY])
    assert page(report, []) == page(report, [])
    assert np.all(np.diff(report.scores.edges) > 0)
