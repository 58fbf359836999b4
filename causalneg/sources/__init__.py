"""Readers of data sets: BEIR folders and zips, JSONL of pairs, the embedded sample."""
