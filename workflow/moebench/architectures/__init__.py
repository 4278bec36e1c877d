"""Model families, their shapes as Hugging Face configurations say them, and schemes of quantization."""
