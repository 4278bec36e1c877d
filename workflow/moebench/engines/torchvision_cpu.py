"""Lets PyPI's torchvision, which is built for CUDA torch, be imported beside the CPU build of torch.

On import it registers fake kernels for two of its compiled operators, which this torch cannot load: `operator
torchvision::nms does not exist`.  Both are declared here just before the import; no image preprocessing calls them.
``envs/build.py`` has every Python of an environment with both packages import this module at its start (a ``.pth``
file), since vLLM inspects model classes in separate processes.  Standard library only until torchvision is imported.
"""

from __future__ import annotations

import sys
from typing import Any

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _Declare:
    """An import finder that finds nothing, but acts once when torchvision is imported."""

    library: Any = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Declare the operators, unless torch is a CUDA build."""
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        if torch.version.cuda is None:
            _Declare.library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                _Declare.library.define(operator)


sys.meta_path.insert(0, _Declare())
