"""Networks: the blocks, how a config becomes a network, and its summary."""
