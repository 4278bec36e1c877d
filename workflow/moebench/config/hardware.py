"""Machine types."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moebench.config.base import Name, Positive, Strict


class Peak(Strict):
    """A peak rate of a device and its source.  Dense, never the sparse marketing figure."""

    flops_per_s: float = Field(gt=0)
    reference: str


class Constant(Strict):
    """A measured constant and its source."""

    value: float = Field(gt=0)
    reference: str


class Calibrated(Strict):
    """How a machine differs from its data sheet.  Missing values are taken as ideal.  Never fitted silently."""

    bandwidth_share: Constant | None = Field(None, description="Sustained divided by peak memory bandwidth")
    compute_share: Constant | None = Field(None, description="Sustained divided by peak rate of matrix products")
    moe_layer_s: Constant | None = Field(
        None, description="Time per MoE layer in addition to its bytes and operations, s"
    )
    step_s: Constant | None = Field(None, description="Time per step in addition to its layers, s")
    collective_step_s: Constant | None = Field(None, description="Startup latency of one ring step of a collective, s")

    def values(self) -> dict[str, float]:
        """The constants that are known, by name."""
        return {name: constant.value for name in type(self).model_fields if (constant := getattr(self, name))}


class Hardware(Strict):
    """A machine type: ``config/hardware/NAME.yaml``.  ``null`` stands for unknown, never a guess."""

    name: Name
    title: str
    kind: Literal["gpu", "cpu"]
    gpu_model: str | None = Field(None, description="SLURM GRES type, e.g. h100")
    device_name: str | None = Field(
        None, description="Device name as reported by the driver; a run on another device is refused"
    )
    memory_bytes: float | None = Field(None, description="Memory of one device")
    bandwidth_bytes_per_s: float | None = Field(None, description="Memory bandwidth of one device")
    link_bytes_per_s: float | None = Field(None, description="One-way bandwidth between devices of a node")
    inter_node_bytes_per_s: float | None = Field(
        None, description="One-way bandwidth between nodes per device (usually limited by the cluster, not the device)"
    )
    peak: dict[str, Peak] = Field({}, description="Dense peak rates by data type")
    calibration: Calibrated | None = Field(
        None, description="Measured efficiencies and overheads, for calibrated times"
    )
    devices_per_node: Positive = 1
    usable_memory_fraction: float = Field(0.9, gt=0, le=1, description="vLLM's gpu_memory_utilization")
    reference: str
