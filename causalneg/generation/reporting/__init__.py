"""What a person sees of a generation run: counts, source leakage, a page, a data-set card."""
