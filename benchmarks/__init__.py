"""Benchmarks: each measures one claim against a named peer."""
