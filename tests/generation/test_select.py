"""Selection: each gate stops what it is for, verdicts say why, kept ones are spread, and no model is asked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from generation_samples import LINEAGE, pairs

from causalneg.config import GateSettings, GenerateSettings
from causalneg.generation.drafts import Drafts
from causalneg.generation.finish import decided, kept_shares
from causalneg.generation.rows import Procedure, Step
from causalneg.generation.select import GATES, Case, Gate, MissingScoreError, lacking, rejection, rejections, select
from causalneg.records import (
    Analysis,
    Edit,
    Facet,
    Judgement,
    Negative,
    Operation,
    Requirement,
    ViolationType,
    content_id,
)
from causalneg.workspace import Workspace

GOOD: dict[str, float] = {
    "length_ratio": 1.0,
    "form_defects": 0,
    "dangling": 0,
    "style_distance": 1.0,
    "outside_changes": 0,
    "overlap": 0.9,
    "reference_copied": 0.2,
    "query_copied": 0.0,
    "answer_replaced": 0,
    "edits_answer": 1,
    "details_left": 0,
    "answer_left": 0,
    "candidates_left": 0,
    "answers": -2.0,
    "target_met": -2.0,
    "others_met": 1.0,
    "target_likely": 0.0,
    "others_likely": 0.0,
    "likelihood_margin": 0.5,
    "replaced_margin": 0.5,
    "fluency": -0.1,
    "relative_score": 0.9,
    "cross_relative_score": 0.9,
    "hardness": 0.8,
    "cosine": 0.5,
}


ANALYSIS = Analysis(
    id="a",
    query_id="q",
    positive_id="p",
    core_need="",
    how_positive_answers="",
    answer_boundary="",
    requirements=[
        Requirement(id=number, facet=Facet.ATTRIBUTE, content=str(number), evidence="", critical=True)
        for number in range(10)
    ],
    lineage=LINEAGE,
)
ASKED = Procedure(mode="rewrite", judge="yes_no", likelihoods=True)
BY_LIKELIHOOD = Procedure(mode="rewrite", judge="likelihood", likelihoods=True)


def negative(text: str = "t", requirement: int = 1, kind: str = "entity_shift", **scores: float) -> Negative:
    return Negative(
        id=text,
        query_id="q",
        positive_id="p",
        analysis_id="a",
        text=text,
        requirement_id=requirement,
        requirement="r",
        violation=ViolationType(kind),
        mode="rewrite",
        origin="from_scratch",
        explanation="",
        lineage=LINEAGE,
        judgements=[Judgement(requirement_id=n, score=1.0) for n in range(10)],
        scores=GOOD | scores,
    )


def case(procedure: Procedure = ASKED, edit: Edit | None = None, **scores: float) -> Case:
    return Case(negative().model_copy(update={"edit": edit, "scores": GOOD | scores}), ANALYSIS, procedure)


def selected(rows: Sequence[Negative], settings: GenerateSettings) -> list[Negative]:
    return select([Case(row, ANALYSIS, ASKED) for row in rows], settings)


REPLACED = Edit(operation=Operation.REPLACE, changes=[])
OF_EDITS = {"dangling", "intended_change", "answer_replaced", "edits_answer", "details_left", "candidates_left"}


@pytest.mark.parametrize(
    ("gate", "change"),
    [
        ("length", {"length_ratio": 0.1}),
        ("length", {"length_ratio": 5.0}),
        ("form", {"form_defects": 1}),
        ("dangling", {"dangling": 1}),
        ("style", {"style_distance": 9.0}),
        ("intended_change", {"outside_changes": 1}),
        ("near_copy", {"overlap": 1.0}),
        ("reference_copied", {"reference_copied": 1.0}),
        ("query_copied", {"query_copied": 1.0}),
        ("answer_replaced", {"answer_replaced": 1}),
        ("edits_answer", {"edits_answer": 0}),
        ("details_left", {"details_left": 0.5}),
        ("answer_left", {"answer_left": 1}),
        ("candidates_left", {"candidates_left": 1}),
        ("answers", {"answers": -0.5}),
        ("target_met", {"target_met": 0.5}),
        ("target_unsure", {"target_met": -0.5}),
        ("others_met", {"others_met": -0.5}),
        ("target_likely", {"target_likely": 0.6}),
        ("others_likely", {"others_likely": -0.7}),
        ("likelihood", {"likelihood_margin": 0.0}),
        ("replacement", {"replaced_margin": 0.3}),
        ("fluency", {"fluency": -2.0}),
        ("positive_aware", {"relative_score": 1.03}),
        ("too_easy", {"relative_score": 0.3}),
    ],
)
def test_each_gate_stops_what_it_is_for(gate: str, change: dict[str, float]) -> None:
    procedure = BY_LIKELIHOOD if gate.endswith("_likely") or gate == "positive_aware" else ASKED
    edit = REPLACED if gate in {*OF_EDITS, "replacement"} else None
    assert rejection(case(procedure, edit), GateSettings()) is None
    stopped = rejection(case(procedure, edit, **change), GateSettings())
    assert stopped is not None
    assert stopped[0] == gate
    assert f"{next(iter(change.values())):.3g}" in stopped[1]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
@pytest.mark.parametrize("procedure", [ASKED, BY_LIKELIHOOD])
@pytest.mark.parametrize("edit", [None, REPLACED])
def test_a_missing_score_is_an_error_where_its_gate_applies(
    gate: Gate, procedure: Procedure, edit: Edit | None
) -> None:
    whole = case(procedure, edit)
    scores = {name: value for name, value in whole.negative.scores.items() if name != gate.score}
    bare = replace(whole, negative=whole.negative.model_copy(update={"scores": scores}))
    thresholds = GateSettings(max_cross_score=2.0, max_judged_relative_score=2.0)
    assert rejection(whole, thresholds) is None
    applying = [other for other in GATES if other.score == gate.score and other.applies(whole)]
    assert lacking(bare, thresholds) == applying
    if applying:
        with pytest.raises(MissingScoreError, match=gate.score):
            rejection(bare, thresholds)
    else:
        assert rejection(bare, thresholds) is None


def test_every_gate_applies_to_something() -> None:
    some = [case(p, e) for p in (ASKED, BY_LIKELIHOOD) for e in (None, REPLACED)]
    assert all(any(gate.applies(c) for c in some) for gate in GATES)


def test_likelihoods_that_an_engine_does_not_tell_are_not_missed() -> None:
    whole = case(ASKED.model_copy(update={"likelihoods": False}))
    scores = {n: v for n, v in whole.negative.scores.items() if n not in ("likelihood_margin", "fluency")}
    silent = replace(whole, negative=whole.negative.model_copy(update={"scores": scores}))
    assert rejection(silent, GateSettings()) is None


def test_gates_that_are_off_until_they_are_set() -> None:
    assert rejection(case(hardness=0.1, cross_relative_score=2.0), GateSettings()) is None
    for settings, gate in (
        (GateSettings(min_hardness=0.5), "hardness"),
        (GateSettings(max_cross_score=0.95), "cross_encoder"),
        (GateSettings(max_judged_relative_score=0.8), "positive_aware_judged"),
    ):
        stopped = rejection(case(hardness=0.1, cross_relative_score=2.0), settings)
        assert stopped is not None
        assert stopped[0] == gate
    assert len({g.name for g in GATES}) == len(GATES)


def test_a_reason_says_what_was_found() -> None:
    row = negative(answer_left=2.0).model_copy(update={"notes": {"answer_left": "1867, Otto"}})
    (decided_row,) = selected([row], GenerateSettings())
    assert (decided_row.verdict, decided_row.rejected_by) == ("rejected", "answer_left")
    assert decided_row.reason == "answer_left 2 is above 0: 1867, Otto"


def test_the_reason_names_the_other_requirement_that_is_broken() -> None:
    judgements = [
        Judgement(requirement_id=n, score=score, moot=moot)
        for n, score, moot in [(1, -9.0, False), (2, -8.0, True), (3, -0.5, False), (4, 2.0, False)]
    ]
    row = negative(others_met=-0.5).model_copy(update={"judgements": judgements})
    (decided_row,) = selected([row], GenerateSettings())
    assert decided_row.reason == "others_met -0.5 is below 0: 3"
    answering = Case(row.model_copy(update={"scores": row.scores | {"answers": 3.0}}), ANALYSIS, ASKED)
    assert list(rejections(answering, GateSettings())) == ["answers", "others_met"]


def test_different_requirements_come_first() -> None:
    rows = [negative(f"t{n}", requirement, cosine=0.9 - n / 10) for n, requirement in enumerate([1, 1, 1, 2, 3])]
    verdicts = [n.verdict for n in selected(rows, GenerateSettings(selection="hardest"))]
    assert verdicts == ["accepted", "rejected", "rejected", "accepted", "accepted"]
    assert {n.rejected_by for n in selected(rows, GenerateSettings())} == {None, "negatives_per_query"}


def test_kept_ones_are_spread_over_the_similarity_or_the_hardest() -> None:
    rows = [negative(f"t{n}", n, cosine=n / 10) for n in range(9)]
    spread = [n.id for n in selected(rows, GenerateSettings(selection="spread")) if n.verdict == "accepted"]
    hardest = [n.id for n in selected(rows, GenerateSettings(selection="hardest")) if n.verdict == "accepted"]
    assert spread == ["t0", "t4", "t8"]
    assert hardest == ["t6", "t7", "t8"]


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_up_to_the_wanted_number_is_kept(count: int) -> None:
    rows = [negative(f"t{n}", n % 2, cosine=n / 10) for n in range(9)]
    kept = [n for n in selected(rows, GenerateSettings(negatives_per_query=count)) if n.verdict == "accepted"]
    assert len(kept) == min(count, 9)


def drafts_of(folder: Path, texts: list[list[tuple[str, str]]]) -> Drafts:
    """Keep scored negatives: a pair for each list, of texts with their kinds of violation."""
    drafts = Drafts(Workspace(str(folder)), "k")
    drafts.write_pairs(pairs(len(texts)), 2)
    drafts.write_procedure(ASKED)
    for batch in drafts.batches():
        rows = []
        for pair in drafts.pairs(batch):
            own = texts[int(pair.id.removeprefix("pair-"))]
            made = [
                negative(text, n, kind).model_copy(update={"id": content_id(pair.id, n)})
                for n, (text, kind) in enumerate(own)
            ]
            rows.append(Step(pair_id=pair.id, analysis=ANALYSIS, negatives=made))
        drafts.write_step("scored", batch, rows)
    return drafts


LONG = "the quick brown fox number {} jumps over a lazy dog of the {} kind and goes home to sleep there"


def test_of_like_texts_the_first_is_kept_over_the_whole_data_set(tmp_path: Path) -> None:
    same = ("The very same text stands in two pairs, word for word.", "entity_shift")
    other = (LONG.format("one", "red"), "entity_shift")
    drafts = drafts_of(tmp_path, [[same], [other], [same, other]])
    rows = [n for _, steps in decided(drafts, GenerateSettings()) for s in steps for n in s.negatives]
    assert [n.rejected_by for n in rows] == [None, None, "duplicate", "duplicate"]


def test_a_duplicate_gives_its_place_to_another(tmp_path: Path) -> None:
    same = ("The very same text stands in two pairs, word for word.", "entity_shift")
    other = (LONG.format("two", "blue"), "entity_shift")
    drafts = drafts_of(tmp_path, [[same], [same, other]])
    settings = GenerateSettings(negatives_per_query=1)
    rows = [n for _, steps in decided(drafts, settings) for s in steps for n in s.negatives]
    assert [n.verdict for n in rows] == ["accepted", "rejected", "accepted"]


def test_no_kind_of_violation_takes_more_than_its_share() -> None:
    counts = Counter({ViolationType.ENTITY_SHIFT: 80, ViolationType.INTENT_DRIFT: 15, ViolationType.NEGATION: 5})
    shares = kept_shares(counts, 0.5)
    kept = {kind: counts[kind] * share for kind, share in shares.items()}
    assert max(kept.values()) <= 0.5 * sum(kept.values()) + 1
    assert shares[ViolationType.NEGATION] == shares[ViolationType.INTENT_DRIFT] == 1


def test_a_share_that_cannot_be_reached_evens_the_kinds() -> None:
    counts = Counter({ViolationType.ENTITY_SHIFT: 80, ViolationType.INTENT_DRIFT: 20})
    kept = {kind: counts[kind] * share for kind, share in kept_shares(counts, 0.2).items()}
    assert kept == {ViolationType.ENTITY_SHIFT: 20, ViolationType.INTENT_DRIFT: 20}


def test_the_share_is_kept_over_the_data_set(tmp_path: Path) -> None:
    texts = [[(LONG.format(n, n * 7), "entity_shift")] for n in range(40)]
    texts += [[(f"A {n} other thing stands at {n * 3} in the hall.", "intent_drift")] for n in range(10)]
    settings = GenerateSettings(max_violation_share=0.5, gates=GateSettings(max_duplicate=1.0))
    rows = [n for _, steps in decided(drafts_of(tmp_path, texts), settings) for s in steps for n in s.negatives]
    kept = Counter(n.violation for n in rows if n.verdict == "accepted")
    assert kept[ViolationType.INTENT_DRIFT] == 10
    assert 3 <= kept[ViolationType.ENTITY_SHIFT] <= 20
    assert {n.rejected_by for n in rows if n.verdict == "rejected"} == {"max_violation_share"}
