"""Rows of earlier stages with nothing special about them."""

from causalneg.records import Answering, Lineage, Mined, Negative, Relabelled, ViolationType, content_id
from causalneg.workspace import Counts, Workspace

LINEAGE = Lineage(
    model="m", model_fingerprint="f", prompt_version="1", profile="generic", seed=0, temperature=0.0, max_tokens=64
)


def negative(
    query_id: str, positive_id: str, text: str, verdict: str = "accepted", scores: dict[str, float] | None = None
) -> Negative:
    """Make a generated negative with the fields that export and training look at."""
    return Negative(
        id=content_id(query_id, positive_id, text),
        query_id=query_id,
        positive_id=positive_id,
        analysis_id="a",
        text=text,
        requirement_id=1,
        requirement="when",
        violation=ViolationType.TEMPORAL_VIOLATION,
        mode="edit",
        origin="edited_positive",
        explanation="",
        lineage=LINEAGE,
        scores=scores or {},
        verdict=verdict,  # type: ignore[arg-type]
    )


def mined(query_id: str, passage_id: str, verdict: str = "accepted", **fields: object) -> Mined:
    """Make a mined candidate with the fields that export and training look at."""
    return Mined(
        query_id=query_id,
        passage_id=passage_id,
        **({"dense_score": 0.5, "positive_score": 0.9} | fields),
        verdict=verdict,  # type: ignore[arg-type]
    )


def write_relabelled(workspace: Workspace, verdicts: dict[tuple[str, str], str]) -> None:
    """Write a finished relabel stage that found false negatives, by query and passage «answers» or «partly»."""
    stage = workspace.begin("relabel", {"verdicts": sorted(verdicts.items())}, ["import", "mine"])
    rows = [
        Relabelled(
            query_id=query_id,
            passage_id=passage_id,
            answering=Answering(answering),
            score=-2.0 if answering == "no" else 2.0,
            reason="" if answering == "no" else "It does.",
            verdict="accepted" if answering == "no" else "rejected",
            rejected_by=None if answering == "no" else answering,
        )
        for (query_id, passage_id), answering in verdicts.items()
    ]
    stage.workspace.write_rows("relabelled", "part-0", Relabelled, rows)
    accepted = sum(row.verdict == "accepted" for row in rows)
    stage.finish(Counts(rows_in=len(rows), accepted=accepted, rejected=len(rows) - accepted))
