"""Networks: the blocks, how a config becomes a network of them, and what is in it."""
