"""Quantized checkpoints: the schemes, and their creation with llm-compressor (docs/precision.md)."""
