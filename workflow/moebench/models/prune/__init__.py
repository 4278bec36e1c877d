"""Pruned checkpoints: fewer experts (inter) or narrower ones (intra), chosen on activations, streamed from disk."""
