"""What `benchmarks.quality` is made of: negatives, examples, arms, one trial, its measures, and the tables."""
