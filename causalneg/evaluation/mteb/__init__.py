"""Evaluation through MTEB: any encoder of ours on MTEB's retrieval tasks, or on data of one's own as such a task."""
