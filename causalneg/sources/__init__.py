"""Reads data sets into the workspace: a reader per layout, one staging for all, and the rules for what is accepted."""
