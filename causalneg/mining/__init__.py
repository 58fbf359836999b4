"""Mines hard negatives from the corpus: BM25 and dense candidates, filtered by their scores."""
