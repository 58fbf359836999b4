"""Trains the encoder: batches, loss, worker loop, Ray Train launcher."""
