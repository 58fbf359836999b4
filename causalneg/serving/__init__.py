"""Serves the retriever over HTTP with Ray Serve."""
