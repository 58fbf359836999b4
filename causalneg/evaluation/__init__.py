"""Measures retrieval quality."""
