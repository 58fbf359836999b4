"""What training minimises: the loss, the weights of its negatives, and both as a loss of sentence-transformers."""
