"""Machine types."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moebench.config.base import Name, Positive, Strict


class Peak(Strict):
    """A peak rate of a device and where it is from.  Dense, never the sparse marketing figure."""

    flops_per_s: float = Field(gt=0)
    reference: str


class Constant(Strict):
    """A measured constant and where it is from."""

    value: float = Field(gt=0)
    reference: str


class Calibrated(Strict):
    """What separates a machine from its data sheet.  Absent: taken as ideal.  Never fitted silently."""

    bandwidth_share: Constant | None = Field(None, description="Sustained over peak memory bandwidth")
    compute_share: Constant | None = Field(None, description="Sustained over peak rate of matrix products")
    moe_layer_s: Constant | None = Field(None, description="Time of a MoE layer beside its bytes and operations, s")
    step_s: Constant | None = Field(None, description="Time of a step beside its layers, s")
    collective_step_s: Constant | None = Field(None, description="Start of one ring step of a collective, s")

    def values(self) -> dict[str, float]:
        """The constants that are known, by name."""
        return {name: constant.value for name in type(self).model_fields if (constant := getattr(self, name))}


class Hardware(Strict):
    """A machine type: ``config/hardware/NAME.yaml``.  ``null`` stands for unknown, never a guess."""

    name: Name
    title: str
    kind: Literal["gpu", "cpu"]
    gpu_model: str | None = Field(None, description="GRES type as SLURM names it, e.g. h100")
    device_name: str | None = Field(
        None, description="Device name as the driver reports it; a run on another is refused"
    )
    memory_bytes: float | None = Field(None, description="Memory of one device")
    bandwidth_bytes_per_s: float | None = Field(None, description="Memory bandwidth of one device")
    link_bytes_per_s: float | None = Field(None, description="Bandwidth between devices of a node, one way")
    inter_node_bytes_per_s: float | None = Field(
        None, description="Bandwidth between nodes, one way, of one device (the cluster's, seldom the device's)"
    )
    peak: dict[str, Peak] = Field({}, description="Dense peak rates by data type")
    calibration: Calibrated | None = Field(None, description="Measured shares and overheads, for calibrated times")
    devices_per_node: Positive = 1
    usable_memory_fraction: float = Field(0.9, gt=0, le=1, description="vLLM's gpu_memory_utilization")
    reference: str
