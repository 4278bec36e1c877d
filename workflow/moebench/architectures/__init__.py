"""Model families, their shapes in Hugging Face configurations, and quantization schemes."""
