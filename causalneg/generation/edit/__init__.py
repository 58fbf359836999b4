"""The `edit` mode: the positive stays as it is but for one requirement; the LLM only chooses."""
