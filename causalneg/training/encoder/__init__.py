"""The encoder at training: loads, tokenises, embeds with gradients, and saves a plain sentence-transformers folder."""
