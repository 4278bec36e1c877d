"""Model files: from the hub, with random weights, pruned or quantized."""
