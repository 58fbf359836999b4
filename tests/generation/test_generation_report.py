"""The report of generation: counts that add up, a page and a card that show texts and run none of them."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from causalneg.config import GateSettings
from causalneg.generation.reporting.card import COLUMNS, card, size_category
from causalneg.generation.reporting.difference import marked, shortened
from causalneg.generation.reporting.examples import Draw, Example, evidenced
from causalneg.generation.reporting.examples import example as shown
from causalneg.generation.reporting.leakage import LeakageReport, Probe
from causalneg.generation.reporting.page import meaning, page
from causalneg.generation.reporting.report import GenerationReport, Histogram, Tally, duration, summary
from causalneg.generation.reporting.surface import Telling
from causalneg.generation.rows import Procedure, Step
from causalneg.generation.select import DUPLICATE, FAILED, GATES, MEANINGS, SURPLUS, VIOLATION_SHARE, Case
from causalneg.markdown import inline
from causalneg.records import (
    Analysis,
    Change,
    Edit,
    Facet,
    Failure,
    Judgement,
    Lineage,
    Mined,
    Negative,
    Operation,
    Outcome,
    Passage,
    Requirement,
    Source,
    ViolationType,
    content_id,
)

LINEAGE = Lineage(
    model="m", model_fingerprint="f", prompt_version="1", profile="generic", seed=0, temperature=0.2, max_tokens=512
)
FACTS: dict[str, Any] = {
    "model": "some/model",
    "prompt_version": "1",
    "profile": "generic",
    "sampling": {"temperature": 0.2, "seed": 0},
    "mode": "edit",
    "mode_reason": "it is small",
    "judge": "yes_no",
}
HOSTILE = '<script>alert("1")</script> & <img src="https://example.org/x.png"> $x^2$ {{ 7 * 7 }} **b** | `c`'


def negative(number: int, rejected_by: str | None = None, **fields: Any) -> Negative:
    return Negative(
        **{
            "id": content_id("negative", number),
            "query_id": f"q{number // 3}",
            "positive_id": f"p{number // 3}",
            "analysis_id": "a",
            "text": "It rose on 7 August 1969.",
            "requirement_id": 2,
            "requirement": "It rose in July 1971.",
            "violation": ViolationType.TEMPORAL_VIOLATION,
            "mode": "edit",
            "origin": "edited_positive",
            "explanation": "Another flight.",
            "lineage": LINEAGE,
            "verdict": "rejected" if rejected_by else "accepted",
            "rejected_by": rejected_by,
            "reason": "it is so" if rejected_by else None,
        }
        | fields
    )


def outcome(number: int, status: str, accepted: int = 0, rejected: int = 0, **usage: int) -> Outcome:
    spent = {"requests": 2, "prompt_tokens": 100, "cached_tokens": 40, "generated_tokens": 10} | usage
    return Outcome(
        input_id=f"i{number}",
        query_id=f"q{number}",
        positive_id=f"p{number}",
        status=status,  # type: ignore[arg-type]
        accepted=accepted,
        rejected=rejected,
        **spent,
    )


def failure(number: int, kind: str, retryable: bool = False, message: str = "") -> Failure:
    return Failure(
        stage="generate", input_id=f"i{number}", kind=kind, retryable=retryable, attempts=1, message=message or kind
    )


def requirement(number: int, content: str, evidence: str, critical: bool = True) -> Requirement:
    return Requirement(id=number, facet=Facet.ENTITY, content=content, evidence=evidence, critical=critical)


PROCEDURE = Procedure(mode="rewrite", judge="yes_no", likelihoods=False)
POSITIVE = "It rose on 26 July 1971."


def analysis_of(row: Negative, requirements: list[Requirement]) -> Analysis:
    return Analysis(
        id="a",
        query_id=row.query_id,
        positive_id=row.positive_id,
        core_need="The name of the ship.",
        how_positive_answers="It names it.",
        answer_boundary="Another ship does not do.",
        requirements=requirements,
        lineage=LINEAGE,
    )


def example(
    row: Negative, query: str = "Which ship?", positive: str = POSITIVE, requirements: Sequence[Requirement] = ()
) -> Example:
    analysis = analysis_of(row, list(requirements) or [requirement(2, "It rose in July 1971.", "26 July 1971")])
    passage = Passage(id=row.positive_id, title="Apollo 15", text=positive)
    return shown(query, passage, Case(row, analysis, PROCEDURE), GateSettings())


def drawn(seed: int, pairs: int) -> tuple[list[Outcome], list[tuple[Negative, Facet]], list[Failure]]:
    """Return the rows of a run that never was."""
    choose = random.Random(seed)  # noqa: S311 - no secret
    gates = [gate.name for gate in GATES] + [DUPLICATE]
    outcomes, negatives, failures = [], [], []
    for pair in range(pairs):
        if choose.random() < 0.2:
            outcomes.append(outcome(pair, "failed", prompt_tokens=choose.randrange(500)))
            failures.append(failure(pair, choose.choice(["timeout", "length"]), choose.random() < 0.5))
            continue
        rows = []
        for k in range(choose.randrange(4)):
            mode = choose.choice(["edit", "rewrite"])
            edit = Edit(operation=choose.choice(list(Operation)), changes=[Change(removed="x")])
            scores = {"hardness": choose.random(), "relative_score": choose.gauss(0.8, 0.5)}
            rows.append(
                negative(
                    3 * pair + k,
                    choose.choice([None, *gates]) if choose.random() < 0.5 else None,
                    mode=mode,
                    edit=edit if mode == "edit" else None,
                    origin="edited_positive" if mode == "edit" else choose.choice(["from_scratch"]),
                    violation=choose.choice(list(ViolationType)),
                    scores=scores if choose.random() < 0.8 else {},
                )
            )
        accepted = sum(row.verdict == "accepted" for row in rows)
        outcomes.append(outcome(pair, "accepted" if accepted else "rejected", accepted, len(rows) - accepted))
        negatives += [(row, choose.choice(list(Facet))) for row in rows]
    return outcomes, negatives, failures


def reported(
    outcomes: list[Outcome], negatives: list[tuple[Negative, Facet]], failures: list[Failure], **facts: Any
) -> GenerationReport:
    tally = Tally()
    for one in outcomes:
        tally.add_outcome(one)
    for row, facet in negatives:
        tally.add_negative(row, facet)
    pairs = Counter(row.positive_id for row, _ in negatives)
    for pair in pairs:
        tally.add_pair([row for row, _ in negatives if row.positive_id == pair])
    for failed in failures:
        tally.add_failure(failed)
    return tally.report(**FACTS | facts)


def flat(nested: dict[str, dict[str, int]]) -> Counter[tuple[str, str]]:
    return Counter({(outer, inner): n for outer, counts in nested.items() for inner, n in counts.items()})


# The counts


@given(st.integers(0, 1000), st.integers(0, 25))
def test_counts_are_those_of_the_rows(seed: int, pairs: int) -> None:
    outcomes, negatives, failures = drawn(seed, pairs)
    report = reported(outcomes, negatives, failures)
    rows = [row for row, _ in negatives]
    accepted = [row for row in rows if row.verdict == "accepted"]
    assert sum(report.pairs.values()) == sum(report.accepted_per_pair.values()) == pairs
    assert report.pairs == {s: sum(o.status == s for o in outcomes) for s in ("accepted", "rejected", "failed")}
    assert sum(n * count for n, count in report.accepted_per_pair.items()) == report.accepted == len(accepted)
    assert report.negatives == len(rows) == sum(o.accepted + o.rejected for o in outcomes)
    assert report.negatives == report.accepted + report.rejected == sum(report.verdicts.values())
    assert report.verdicts == Counter(row.rejected_by or "accepted" for row in rows)
    assert flat(report.gates_by_violation) == Counter((str(r.violation), r.rejected_by or "accepted") for r in rows)
    assert flat(report.gates_by_mode) == Counter((r.mode, r.rejected_by or "accepted") for r in rows)
    by = report.accepted_by
    assert by.get("violation", {}) == Counter(str(row.violation) for row in accepted)
    assert by.get("facet", {}) == Counter(str(facet) for row, facet in negatives if row.verdict == "accepted")
    assert by.get("mode", {}) == Counter(row.mode for row in accepted)
    assert by.get("origin", {}) == Counter(row.origin for row in accepted)
    assert by.get("operation", {}) == Counter(str(row.edit.operation) for row in accepted if row.edit)
    for name, histogram in (("hardness", report.hardness), ("relative_score", report.relative_score)):
        for verdict in ("accepted", "rejected"):
            scored = sum(row.verdict == verdict and name in row.scores for row in rows)
            assert sum(getattr(histogram, verdict)) == scored
    kinds = Counter(f.kind for f in failures)
    assert {kind: row.count for kind, row in report.failures.items()} == kinds
    assert sum(row.retryable for row in report.failures.values()) == sum(f.retryable for f in failures)
    assert report.tokens.prompt == sum(o.prompt_tokens for o in outcomes)
    assert report.tokens.generated == sum(o.generated_tokens for o in outcomes)
    assert report.tokens.requests == 2 * pairs


def test_the_order_of_rows_decides_nothing() -> None:
    outcomes, negatives, failures = drawn(1, 60)
    failures = [f.model_copy(update={"message": f"no {n}"}) for n, f in enumerate(failures)]
    turned = reported(outcomes[::-1], negatives[::-1], failures[::-1])
    assert turned == reported(outcomes, negatives, failures)
    assert list(turned.verdicts.items()) == list(reported(outcomes, negatives, failures).verdicts.items())


def test_memory_does_not_grow_with_the_rows() -> None:
    outcomes, negatives, failures = drawn(2, 200)

    def size(times: int) -> int:
        return len(reported(outcomes * times, negatives * times, failures * times).model_dump_json())

    assert size(20) < size(1) + 500


def test_rates_of_tokens() -> None:
    outcomes = [outcome(0, "accepted", 2), outcome(1, "failed", prompt_tokens=300, cached_tokens=0)]
    rows = [(negative(0), Facet.ENTITY), (negative(1), Facet.ENTITY), (negative(2, "form"), Facet.ENTITY)]
    tokens = reported(outcomes, rows, [], seconds=5.0).tokens
    assert tokens.model_dump() == {
        "requests": 4,
        "prompt": 400,
        "cached": 40,
        "generated": 20,
        "cache_hit_rate": 0.1,
        "generated_per_accepted": 10,
        "total_per_accepted": 210,
        "generated_per_second": 4,
        "total_per_second": 84,
    }
    nothing = reported([], [], []).tokens
    assert nothing.cache_hit_rate is nothing.total_per_accepted is nothing.generated_per_second is None


def filled(histogram: Histogram, group: str) -> list[float]:
    """Return the lower edges of the bins that have a count."""
    return [edge for edge, count in zip(histogram.edges, getattr(histogram, group), strict=False) if count]


def test_scores_fall_into_their_bins() -> None:
    scores = [0.0, 0.05, 1.0, float("nan")]
    rows = [
        (negative(n, scores={"hardness": s, "relative_score": 3 * s - 1}), Facet.OTHER) for n, s in enumerate(scores)
    ]
    report = reported([], rows, [])
    assert filled(report.hardness, "accepted") == pytest.approx([0, 0.05, 0.95])
    assert filled(report.relative_score, "accepted") == pytest.approx([0, 1.475])  # beyond the range, at its ends
    assert sum(report.relative_score.accepted) == 3


def test_mined_scores_are_compared_where_they_can_be() -> None:
    tally = Tally()
    for number, more in enumerate([{}, {"verdict": "rejected"}, {"cross_score": 4.0}]):
        row = {"query_id": "q", "passage_id": str(number), "dense_score": 0.4, "positive_score": 0.8}
        tally.add_mined(Mined(**{"verdict": "accepted"} | row | more))  # type: ignore[arg-type]
    histogram = tally.report(**FACTS).relative_score
    assert sum(histogram.mined) == 1
    assert filled(histogram, "mined") == pytest.approx([0.5])


def test_a_fact_that_is_missing_or_unknown_is_refused() -> None:
    with pytest.raises(ValidationError, match="speed"):
        Tally().report(**FACTS, speed=3)
    with pytest.raises(ValidationError, match="profile"):
        Tally().report(**{name: value for name, value in FACTS.items() if name != "profile"})


def test_a_report_is_read_back_from_json() -> None:
    rows = [example(negative(0)), example(negative(1, "form"))]
    report = reported(*drawn(3, 30), leakage=leakage_report(), examples=rows)
    assert GenerationReport.model_validate(json.loads(report.model_dump_json())) == report


def test_the_summary_says_the_main_numbers() -> None:
    outcomes = [outcome(0, "accepted", 1, 1), outcome(1, "rejected", 0, 1), outcome(2, "failed"), outcome(3, "failed")]
    rows = [(negative(0), Facet.ENTITY), (negative(1, "form"), Facet.ENTITY), (negative(3, "form"), Facet.ENTITY)]
    told = dict(summary(reported(outcomes, rows, [], seconds=90, leakage=leakage_report())))
    assert told["pairs with accepted negatives"] == "1 (25.0 %)"
    assert told["pairs that failed"] == "2 (50.0 %)"
    assert told["negatives rejected"] == "2 (66.7 %)"
    assert told["from the prefix cache"] == "160 (40.0 %)"
    assert told["all tokens per accepted negative"] == "440"
    assert told["time"] == "1.5 min"
    assert any(value == "0.810 (0.780 to 0.840)" for value in told.values())


@pytest.mark.parametrize(("seconds", "words"), [(None, "–"), (12.34, "12.3 s"), (600, "10.0 min"), (9000, "2.5 h")])  # noqa: RUF001
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


# The difference to the positive


def squeezed(text: str) -> str:
    return "".join(text.split())


TEXTS = st.lists(st.sampled_from("a bb ccc dd. ee, (f) 1971 \n".split(" ")), max_size=30).map(" ".join)


@given(TEXTS, TEXTS)
def test_marks_lose_nothing(before: str, after: str) -> None:
    pieces = marked(before, after)
    kept = [p for p in pieces if p.kind != "removed"]
    assert "".join(p.text for p in kept) == after
    if any(p.kind != "kept" for p in pieces):
        assert squeezed("".join(p.text for p in pieces if p.kind != "inserted")) == squeezed(before)


def test_an_edit_is_marked_where_it_is() -> None:
    before = "The Saturn V rose on 26 July 1971 with three men aboard. USS Okinawa took them up."
    pieces = marked(before, before.replace("26 July 1971", "7 August 1969"))
    assert [(p.kind, p.text.strip()) for p in pieces] == [
        ("kept", "The Saturn V rose on"),
        ("removed", "26 July 1971"),
        ("inserted", "7 August 1969"),
        ("kept", "with three men aboard. USS Okinawa took them up."),
    ]
    (_, dropped) = marked(before, "The Saturn V rose on 26 July 1971 with three men aboard.")
    assert (dropped.kind, dropped.text) == ("removed", "USS Okinawa took them up.")


def test_a_new_text_has_no_marks() -> None:
    text = "Nothing of it is left, whatever one looks for."
    assert [(p.kind, p.text) for p in marked("The Saturn V rose on 26 July 1971.", text)] == [("kept", text)]


def test_very_long_texts_are_compared_in_no_time() -> None:
    before = " ".join(f"w{n % 50}" for n in range(30_000))
    pieces = marked(f"start {before} end", f"start {before[::-1]} end")
    assert "".join(p.text for p in pieces if p.kind != "removed").endswith("end")


def test_long_texts_keep_their_ends() -> None:
    text = " ".join(map(str, range(100)))
    assert shortened(text, 2) == "0 1 … 98 99"
    assert shortened(text, 60) == text


# The page


class Seen(HTMLParser):
    """Collects tags, ids, the addresses and actions of tags, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [v or "" for name, v in attrs if name in ("src", "href", "xlink:href") or name[:2] == "on"]

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def line(self) -> str:
        return " ".join(" ".join(self.parts).split())


def leakage_report(**fields: Any) -> LeakageReport:
    result = Probe(auc=0.81, low=0.78, high=0.84, mined=90, generated=100, queries=40)
    word = {"auc": 0.6, "z": 4.0, "generated": 30, "mined": 2}
    return LeakageReport(
        **{
            "generated": 100,
            "mined": 90,
            "queries": 40,
            "unmatched": 10,
            "overall": result,
            "surface": result.model_copy(update={"auc": 0.9, "high": 0.95}),
            "positives": None,
            "by_mode": {"edit": result},
            "by_violation": {"entity_shift": result, "intent_drift": None, "negation": result},
            "by_operation": {},
            "telling": [
                Telling(kind="token", name="notably", more_in=Source.GENERATED, **word),
                Telling(kind="feature", name="mean_word_length", more_in=Source.MINED, **word),
            ],
            "reading": "It can be told.",
        }
        | fields
    )


def test_the_page_escapes_texts_and_loads_nothing() -> None:
    rows = [
        negative(0, text=HOSTILE, title=HOSTILE, requirement=HOSTILE, explanation=HOSTILE),
        negative(1, "form", text=HOSTILE, reason=HOSTILE),
        negative(2, "form", text=f"{HOSTILE} It rose on 7 August 1969.", origin="from_scratch"),
    ]
    telling = Telling(kind="token", name=HOSTILE, more_in=Source.MINED, auc=0.4, z=-4, generated=2, mined=30)
    report = reported(
        [outcome(0, "failed")],
        [(row, Facet.ENTITY) for row in rows],
        [failure(0, "timeout", message=HOSTILE)],
        leakage=leakage_report(telling=[telling], reading=HOSTILE, by_mode={HOSTILE: None, "edit": None}),
        mode_reason=HOSTILE,
        model=HOSTILE,
    )
    hostile = [requirement(2, HOSTILE, HOSTILE), requirement(3, HOSTILE, "script")]
    examples = [example(row, HOSTILE, HOSTILE, hostile) for row in rows]
    html = page(report.model_copy(update={"examples": examples}))
    seen = Seen(html)
    assert {"img", "iframe", "link", "object"}.isdisjoint(seen.tags)
    assert re.findall(r"<script.*?</script>", html, re.DOTALL) == re.findall(
        r"<script.*?</script>", page(reported([], [], [])), re.DOTALL
    )
    assert seen.tags.count("script") == 1
    assert all(address.startswith("#") for address in seen.addresses)
    assert seen.text.count(HOSTILE) >= 20
    assert len(seen.ids) == len(set(seen.ids))
    assert "url(http" not in html
    assert "@import" not in html


def test_names_in_charts_are_text() -> None:
    kinds = {HOSTILE: Probe(auc=0.6, low=0.5, high=0.7, mined=20, generated=20, queries=10), "edit": None}
    html = page(reported([], [], [], leakage=leakage_report(by_mode=kinds)))
    assert Seen(html).tags.count("script") == 1
    assert "img" not in Seen(html).tags
    charts = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(charts) == 2
    for svg in charts:
        ElementTree.fromstring(svg)  # noqa: S314 - our own


def test_the_page_says_what_was_counted() -> None:
    outcomes = [outcome(0, "accepted", 1, 1), outcome(1, "rejected", 0, 1), outcome(2, "failed")]
    rows = [
        negative(
            0,
            text="It rose on 7 August 1969.",
            title="Apollo 15",
            edit=Edit(operation="replace", changes=[Change(removed="26 July 1971", inserted="7 August 1969")]),
            judgements=[Judgement(requirement_id=1, score=2.5), Judgement(requirement_id=2, score=-1.25)],
            scores={"hardness": 0.75},
        ),
        negative(1, "target_met", text="It rose on 26 July 1971, they say.", title="Apollo 15"),
        negative(3, "a_new_gate"),
    ]
    report = reported(
        outcomes, [(r, Facet.ENTITY) for r in rows], [failure(2, "timeout", True)], leakage=leakage_report()
    )
    html = page(report.model_copy(update={"examples": [example(row) for row in rows]}))
    text = Seen(html).line
    assert "1 of 3 generated negatives passed every gate; they belong to 1 of 3 pairs" in text
    assert "1 pair failed" in text
    assert "target met 1 33.3 still meets the requirement that it should break" in text
    assert "a new gate 1 33.3 a new gate" in text
    assert "It can be told." in text
    assert "Too few to tell: intent drift." in text
    assert "but for 10 generated ones" in text
    assert "«notably» generated 30 2 0.60" in text
    assert "<del>26 July 1971</del> <ins>7 August 1969</ins>" in html
    assert "It rose in July 1971. target evidence: 26 July 1971 entity critical not met -1.25" in text
    assert "hardness 0.75" in text
    assert "target met it is so" in text
    assert "timeout 1 1 timeout" in text


def judged_example(rejected_by: str | None = "others_met") -> Example:
    requirements = [
        requirement(1, "Speaks of Apollo 15.", "Apollo 15"),
        requirement(2, "It rose in July 1971.", "26 July 1971"),
        requirement(3, "Names the ship.", "USS Okinawa  took them up"),
        requirement(4, "Says who.", "three men", critical=False),
    ]
    row = negative(
        0,
        rejected_by,
        mode="rewrite",
        origin="rewritten_candidate",
        judgements=[
            Judgement(requirement_id=1, score=-3.0),
            Judgement(requirement_id=2, score=-2.5),
            Judgement(requirement_id=3, score=-4.0, moot=True),
        ],
        scores={"others_met": -3.0, "target_met": -2.5, "answers": 1.5, "overlap": 1.0},
    )
    text = f"{POSITIVE} USS Okinawa took them up, all three men. " + "More of it. " * 200
    return example(row, "Which ship took them up?", text, requirements)


def test_an_example_has_all_that_is_shown_of_it() -> None:
    one = Example.model_validate_json(judged_example().model_dump_json())
    assert [(r.verdict, r.score, r.broken) for r in one.requirements] == [
        ("not met", -3.0, False),
        ("not met", -2.5, True),
        ("moot", -4.0, False),
        ("not judged", None, False),
    ]
    whole = one.positive.full_text
    assert [[whole[a:b] for a, b in r.spans] for r in one.requirements] == [
        ["Apollo 15"],
        ["26 July 1971"],
        ["USS Okinawa took them up"],
        ["three men"],
    ]
    assert "".join(stretch.text for stretch in evidenced(whole, one.requirements)) == whole
    assert next(iter(one.gates)) == "others_met"  # the one that its row names
    assert {"near_copy", "answers"} <= set(one.gates)
    assert (one.core_need, one.answer_boundary) == ("The name of the ship.", "Another ship does not do.")


def test_a_few_of_each_gate_are_drawn_whatever_the_order() -> None:
    rows = [negative(n, [None, "form", "answers"][n % 3]) for n in range(90)]
    steps = [
        Step(pair_id=f"i{n}", analysis=analysis_of(rows[n], []), negatives=rows[n : n + 3]) for n in range(0, 90, 3)
    ]
    draws = [Draw(0), Draw(0)]
    for draw, order in zip(draws, (steps, steps[::-1]), strict=True):
        for step in order:
            draw.add(step)
    one, other = ({case.negative.id: case for case in draw.cases(PROCEDURE)} for draw in draws)
    assert one == other
    assert Counter(c.negative.rejected_by for c in one.values()) == {None: 12, "form": 2, "answers": 2}
    assert all(c.analysis.positive_id == c.negative.positive_id for c in one.values())


def test_evidence_of_two_requirements_may_overlap() -> None:
    requirements = [requirement(1, "a", "on 26 July"), requirement(2, "b", "26 July 1971"), requirement(3, "c", "gone")]
    one = example(negative(0), requirements=requirements)
    pieces = [(s.text, s.requirements) for s in evidenced(one.positive.full_text, one.requirements)]
    assert pieces[1:4] == [("on ", [1]), ("26 July", [1, 2]), (" 1971", [2])]
    assert "".join(text for text, _ in pieces) == one.positive.full_text


def test_the_page_shows_requirements_the_whole_positive_and_every_gate() -> None:
    one = judged_example()
    rows = [(one.negative, Facet.ENTITY), (negative(1, "others_met"), Facet.ENTITY)]
    html = page(reported([], rows, [], examples=[one]))
    text = Seen(html).line
    assert text.count("More of it.") >= 200
    assert "core need The name of the ship. answer boundary Another ship does not do." in text
    assert "1 Speaks of Apollo 15. evidence: Apollo 15 entity critical not met -3.00" in text
    assert "2 It rose in July 1971. target evidence: 26 July 1971 entity critical not met -2.50" in text
    assert "3 Names the ship. evidence: USS Okinawa took them up entity critical moot -4.00" in text
    assert "4 Says who. evidence: three men entity not judged" in text
    assert "<mark>26 July 1971</mark><sup>2</sup>" in html
    assert "answers the query yes +1.50" in text
    assert "rewritten candidate" in text
    assert "near copy overlap 1 is above" in text
    assert "1 of 2 negatives, drawn by seed" in text
    assert "1 of 2 shown" in text


def test_the_page_can_be_filtered_and_is_whole_without_a_script() -> None:
    rows = [judged_example(), example(negative(1))]
    html = page(reported([], [(one.negative, Facet.ENTITY) for one in rows], [], examples=rows))
    articles = re.findall(r'<article data-gates="([^"]*)" data-violation="([^"]*)">', html)
    assert articles[0] == ("accepted", "temporal_violation")
    assert set(articles[1][0].split()) == set(rows[0].gates)
    choices = set(re.findall(r'<option value="([^"]*)">', html))
    assert choices == {"", "accepted", "temporal_violation", *rows[0].gates}
    assert re.search(r'<div id="filters"[^>]* hidden>', html)  # of no use without the script


def test_a_very_long_text_does_not_make_the_page_long() -> None:
    row = negative(0, text="word " * 50_000)
    html = page(reported([], [(row, Facet.ENTITY)], [], examples=[example(row, positive="other " * 50_000)]))
    assert len(html) < 100_000


def test_how_negatives_of_a_pair_differ() -> None:
    kinds = [(2, "entity_shift", 0.9), (3, "entity_shift", 0.25), (2, "negation", 0.5)]
    rows = [negative(n, requirement_id=r, violation=v, scores={"hardness": h}) for n, (r, v, h) in enumerate(kinds)]
    other = [negative(3, scores={"hardness": 0.5}), negative(4, scores={"hardness": 0.5}), negative(5, "form")]
    alone = [negative(6), negative(7, "form")]
    report = reported([], [(row, Facet.ENTITY) for row in [*rows, *other, *alone]], [])
    assert report.diversity.requirements == {2: {1: 1}, 3: {2: 1}}
    assert report.diversity.violations == {2: {1: 1}, 3: {2: 1}}
    assert report.diversity.hardness_spread == [1, 0, 0, 1, 0]
    text = Seen(page(report)).line
    assert "3 1 2.00 2.00" in text
    assert "0.6 to 0.8 1" in text
    assert report.accepted_by["origin"] == {"edited_positive": 6}


@pytest.mark.parametrize("leakage", [None, leakage_report(overall=None, surface=None, by_violation={}, telling=[])])
def test_a_page_and_a_card_of_nothing(leakage: LeakageReport | None) -> None:
    report = reported([], [], [], leakage=leakage)
    (svg,) = re.findall(r"<svg.*?</svg>", page(report), flags=re.DOTALL)
    ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert "None was accepted." in card(report, None, "empty")


def test_page_and_card_are_the_same_in_every_run() -> None:
    rows = [example(negative(0)), example(negative(1, "form"))]
    report = reported(*drawn(4, 20), leakage=leakage_report(), examples=rows)
    assert page(report) == page(report)
    assert card(report, None, "n") == card(report, None, "n")


def test_every_gate_has_its_words() -> None:
    assert {gate.name for gate in GATES} | {DUPLICATE, SURPLUS, VIOLATION_SHARE, FAILED} <= set(MEANINGS)
    assert all(MEANINGS.values())
    assert [meaning(gate.name) for gate in GATES] == [gate.meaning for gate in GATES]
    assert meaning("some_gate") == "some gate"


# The card


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    _, matter, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(matter), body


def test_the_front_matter_is_yaml_whatever_the_names() -> None:
    report = reported(*drawn(5, 40))
    name = 'no: "one"\n---\nlicense: mit # '
    matter, body = front_matter(card(report, 'cc-by-4.0: "x"', name, language="en"))
    assert matter["license"] == 'cc-by-4.0: "x"'
    assert matter["pretty_name"] == " ".join(name.split())
    assert matter["language"] == ["en"]
    assert matter["size_categories"] == ["n<1K"]
    assert "text-retrieval" in matter["task_categories"]
    assert body.lstrip().startswith('# no: "one" --- license: mit')


def test_a_licence_that_is_not_known_is_asked_for() -> None:
    matter, body = front_matter(card(reported([], [], []), None, "n"))
    assert matter["license"] == "unknown"
    assert matter["language"] == ["und"]
    assert "source's licence holds" in " ".join(body.split())
    assert "fill it in" in body
    assert "Unknown" not in card(reported([], [], []), "mit", "n")


def test_the_card_says_what_was_counted() -> None:
    outcomes = [outcome(0, "accepted", 1, 2), outcome(1, "failed")]
    rows = [negative(0, title="Apollo 15"), negative(1, "target_met"), negative(2, "form")]
    report = reported(
        outcomes, [(r, Facet.ENTITY) for r in rows], [failure(1, "timeout")], leakage=leakage_report(), seconds=3.0
    )
    body = card(report.model_copy(update={"examples": [example(row) for row in rows]}), None, "n")
    assert "1 of 3 passed every" in body
    assert "| target met | 1 | 33.3 % | still meets the requirement that it should break |" in body
    assert "| temporal violation | 3 | 1 | 33.3 % |" in body
    assert "~~26 July 1971~~ **7 August 1969**." in body
    assert "rejected by target met: it is so" in body
    assert "It can be told." in body
    assert "timeout 1." in body
    assert "| time | 3.0 s |" in body
    assert "temperature 0.2, seed 0" in body


def test_the_card_runs_and_renders_nothing_of_the_texts() -> None:
    rows = [negative(0, text=HOSTILE, requirement=HOSTILE, explanation=HOSTILE), negative(1, "form", reason=HOSTILE)]
    report = reported([], [(row, Facet.ENTITY) for row in rows], [], model=HOSTILE, mode_reason=HOSTILE)
    examples = [example(row, query=HOSTILE, positive=HOSTILE) for row in rows]
    text = card(report.model_copy(update={"examples": examples}), HOSTILE, HOSTILE)
    body = front_matter(text)[1]
    assert "<script" not in body
    assert "<img" not in body
    assert "{{ 7 * 7 }}".replace("*", "\\*") in body
    assert inline(HOSTILE) in body
    assert not re.search(r"(?<!\\)\*\*b", body)
    assert not re.search(r"(?<!\\)`c", body)


def test_every_column_is_explained() -> None:
    assert set(COLUMNS) == set(Negative.model_fields)


@pytest.mark.parametrize(
    ("rows", "category"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**8, "n>10M")]
)
def test_sizes(rows: int, category: str) -> None:
    assert size_category(rows) == category
