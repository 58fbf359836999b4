"""Writes train pairs with their negatives in the formats of other tools: one module per format."""
