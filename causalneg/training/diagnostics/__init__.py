"""What training does with the source of its negatives, in figures."""
