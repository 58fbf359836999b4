"""Gates that need the texts alone: pure functions that score a generated passage and say why."""
