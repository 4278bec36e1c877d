"""Counts of the experts that a layer's router chose, by phase and by step."""

from __future__ import annotations

import torch

from moebench.engines.protocol import Routed


class ExpertCounts:
    """The experts that one layer's router chose since counting began."""

    def __init__(self, experts: int) -> None:
        self.counts = torch.zeros(experts, dtype=torch.int64)
        self.phases: dict[str, torch.Tensor] = {}
        self.steps: list[list[int]] = []
        self.step_phases: list[str] = []

    def add(self, chosen: torch.Tensor, tokens: int, phase: str) -> None:
        """Count a step of ``tokens`` tokens; ``chosen``: ids of their experts, of any shape, on any device."""
        new = torch.bincount(chosen.reshape(-1).long().cpu(), minlength=self.counts.numel())
        self.counts += new
        self.phases[phase] = self.phases.get(phase, torch.zeros_like(new)) + new
        self.steps.append([tokens, int((new > 0).sum())])
        self.step_phases.append(phase)

    def routed(self) -> Routed:
        """The counts as plain Python numbers."""
        return {
            "counts": self.counts.tolist(),
            "phases": {phase: counts.tolist() for phase, counts in self.phases.items()},
            "steps": self.steps,
            "step_phases": self.step_phases,
        }
