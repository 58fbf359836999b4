"""Decides on generated negatives by their scores and the thresholds of the config."""

from collections.abc import Callable, Sequence

from causalneg.config import GateSettings
from causalneg.records import Negative

Gate = tuple[str, Callable[[dict[str, float], GateSettings], bool]]

# In the order in which they are asked: the first that a negative does not pass is named in its row.
GATES: tuple[Gate, ...] = (
    ("length", lambda s, t: t.min_length_ratio <= s["length_ratio"] <= t.max_length_ratio),
    ("form", lambda s, t: s["form_defects"] == 0),
    ("intended_change", lambda s, t: s["outside_changes"] == 0),
    ("near_copy", lambda s, t: s["overlap"] < t.max_overlap),
    ("answer_replaced", lambda s, t: s["answer_replaced"] == 0),
    ("edits_answer", lambda s, t: s["edits_answer"] == 1),
    ("details_left", lambda s, t: s["details_left"] <= t.max_details_left),
    ("answer_left", lambda s, t: s["answer_left"] <= t.max_answer_left),
    ("likelihood", lambda s, t: s["likelihood_margin"] >= t.min_likelihood_margin),
    ("positive_aware", lambda s, t: s["relative_score"] < t.max_relative_score),
    ("hardness", lambda s, t: s["hardness"] >= t.min_hardness),
)


def first_failed(scores: dict[str, float], thresholds: GateSettings) -> str | None:
    """Return the name of the first gate that the scores do not pass, or None."""
    return next((name for name, passes in GATES if not passes(scores, thresholds)), None)


def select(negatives: Sequence[Negative], thresholds: GateSettings, limit: int) -> list[Negative]:
    """Give each negative of a pair its verdict: at most `limit` are accepted, different requirements first.

    Returns:
        The same negatives, in the same order.
    """
    failed = [first_failed(n.scores, thresholds) for n in negatives]
    passed = [i for i, name in enumerate(failed) if name is None]
    seen: dict[int, int] = {}
    rank = {}
    for i in passed:
        requirement = negatives[i].requirement_id
        rank[i] = seen[requirement] = seen.get(requirement, -1) + 1
    chosen = set(sorted(passed, key=lambda i: (rank[i], i))[:limit])
    return [
        negative.model_copy(
            update={
                "verdict": "accepted" if i in chosen else "rejected",
                "rejected_by": None if i in chosen else failed[i] or "negatives_per_query",
            }
        )
        for i, negative in enumerate(negatives)
    ]
