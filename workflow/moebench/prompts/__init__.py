"""Prompts at exact token lengths: text, images, corpora."""
