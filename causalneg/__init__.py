"""causalneg: hard negatives that an LLM writes on purpose, checked, and dense retrievers trained on them."""

__version__ = "0.1.0"
