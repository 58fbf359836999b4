"""What training reads: rows and tokens on disk, their order, and the batches made of them."""
