"""What an inspection found; the JSON output has this form."""

from typing import Any, Literal

from pydantic import BaseModel

from causalneg.workspace import Counts, Stage


class StageFinding(BaseModel):
    """A stage.

    Attributes:
        state: `outdated` stages were made from an earlier result of a stage before them, or from an outdated one; of
            `damaged` ones a file is gone or the manifest cannot be read.
        building: whether a new result was begun and is not finished.
        settings: those that are not the default.
        config: everything that determined the result.
    """

    stage: Stage
    state: Literal["done", "unfinished", "absent", "outdated", "damaged"]
    building: bool = False
    finished: str | None = None
    seconds: float | None = None
    counts: Counts | None = None
    tokens: dict[str, int] = {}
    settings: dict[str, Any] = {}
    config: dict[str, Any] = {}
    details: dict[str, Any] = {}


class FolderFinding(BaseModel):
    """A folder of the workspace.

    Attributes:
        rows: of its Parquet files; None where it has none.
        reasons: rows that were rejected or that failed, by reason; None where rows are of no such kind.
        sample: some rows, drawn by seed, with long values cut.
    """

    folder: str
    files: int
    bytes: int
    rows: int | None = None
    reasons: dict[str, int] | None = None
    sample: list[dict[str, Any]] = []


class Lengths(BaseModel):
    """Lengths of texts in words.

    Attributes:
        texts: how many were measured.
        of: how many there are among which these were spread evenly.
    """

    what: str
    texts: int
    of: int
    min: int
    median: int
    p95: int
    max: int


class SplitFinding(BaseModel):
    """The judged queries of a split."""

    split: str
    queries: int
    judgements: int
    positives: int


class Alike(BaseModel):
    """Two queries of different splits that are the same or nearly so."""

    query_id: str
    query: str
    train_query_id: str
    train_query: str


class Overlap(BaseModel):
    """What a split has in common with train.

    Attributes:
        same_queries: queries with the text of a train query, but for case, punctuation and spaces.
        near_queries: further queries that share most of their words with a train query.
        positives: passages that are a positive of the split.
        positives_in_train: of these, how many are a positive in train.
        negatives_in_train: of these, how many were mined as a negative for train.
    """

    split: str
    queries: int
    same_queries: int
    near_queries: int
    examples: list[Alike]
    positives: int
    positives_in_train: int
    negatives_in_train: int


class Findings(BaseModel):
    """All that an inspection found."""

    workspace: str
    version: str
    bytes: int
    stages: list[StageFinding]
    folders: list[FolderFinding]
    splits: list[SplitFinding]
    lengths: list[Lengths]
    overlap: list[Overlap]
