"""When an MoE is slower than a dense model of equal quality: the qs inequality (arXiv 2603.08960)."""
