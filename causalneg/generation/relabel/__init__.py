"""The relabel stage: the LLM judges which of the mined candidates answer their query after all."""
