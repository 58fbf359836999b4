"""Builds and reads index versions."""
