"""Quantized checkpoints: which schemes there are, and how one is made with llm-compressor (docs/precision.md)."""
