"""The tokens of a run as engines report them, run-length encoded."""

from __future__ import annotations

Runs = list[list[int]]
"""Tokens of one request, run-length coded: [first step, number of steps, tokens per step]."""


def encode(steps: list[int], tokens: list[int]) -> Runs:
    """Encode the (step, tokens received in it) pairs of one request, steps ascending, as runs."""
    runs: Runs = []
    for step, count in zip(steps, tokens, strict=True):
        if runs and runs[-1][0] + runs[-1][1] == step and runs[-1][2] == count:
            runs[-1][1] += 1
        else:
            runs.append([step, 1, count])
    return runs
