"""How near a negative's score comes to the positive's; mining and generation decide by the same measure."""


def relative_score(score: float, positive_score: float) -> float:
    """Return a negative's score as a share of the positive's, 1 where they are equal.

    For a positive score this is the quotient of NV-Retriever (arXiv 2407.15831). It also falls with `score`
    where the positive's score is negative, which the quotient does not.
    """
    return 1 + (score - positive_score) / max(abs(positive_score), 1e-6)
