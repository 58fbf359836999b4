"""Generates counterfactual negatives: decompose, perturb, verify, select."""
