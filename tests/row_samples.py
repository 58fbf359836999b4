"""Rows of earlier stages with nothing special about them."""

from causalneg.records import Lineage, Mined, Negative, ViolationType, content_id


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
        lineage=Lineage(
            model="m",
            model_fingerprint="f",
            prompt_version="1",
            profile="generic",
            seed=0,
            temperature=0.0,
            max_tokens=64,
        ),
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
