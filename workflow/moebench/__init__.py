"""MoE-Inference-Bench: measure, predict and report the inference performance of Mixture-of-Experts models.

The measurement side (``moebench.measure``, ``moebench.engines``) imports only the standard library, the
engine and torch; pydantic, pandas, pyarrow and seaborn stay on the workflow side.  What crosses is JSON.
"""

__version__ = "0.1.0"
