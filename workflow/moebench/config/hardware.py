"""Machine types."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from moebench.config.base import Name, Positive, Strict


class Peak(Strict):
    """A peak rate of a device and its source.  Dense, never the sparse marketing figure."""

    flops_per_s: float = Field(gt=0)
    reference: str


class Constant(Strict):
    """A measured constant and its source."""

    value: float = Field(gt=0)
    reference: str


class Price(Strict):
    """What an hour of one device costs."""

    usd_per_hour: float = Field(gt=0, description="Price of one device for an hour, USD")
    source: str = Field(description="Who asks it, for what, and where that is said")
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$", description="When it was read")


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


class Figure(Strict):
    """A number with its unit and where it is from."""

    value: float = Field(gt=0)
    unit: str
    source: str


class AllReduceTable(Strict):
    """Measured times of all-reduces of a machine."""

    message_bytes: tuple[float, ...]
    graph_us: dict[Positive, tuple[float, ...]] = Field(
        description="Time per message size by number of GPUs, in a CUDA graph"
    )
    eager_us: dict[Positive, tuple[float, ...]] = Field(
        description="Time per message size by number of GPUs, launched one by one"
    )
    source: str
    link_bytes_per_s: float | None = Field(
        None, description="One-way link bandwidth of the machine it was measured on, if another, bytes/s"
    )

    @model_validator(mode="after")
    def _as_long(self) -> AllReduceTable:
        for times in (*self.graph_us.values(), *self.eager_us.values()):
            if len(times) != len(self.message_bytes):
                raise ValueError(f"{len(times)} times for {len(self.message_bytes)} sizes; give one time per size")
        if set(self.graph_us) != set(self.eager_us) or not self.graph_us:
            raise ValueError("graph_us and eager_us need the same numbers of GPUs, at least one")
        return self


class Fitted(Strict):
    """Constants of the calibrated cost model (docs/cost-model.md).  Plans do not carry them."""

    like: Name | None = Field(
        None,
        description="Machine whose constants are used, with this one's peaks, because nothing was measured on this one",
    )
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$", description="When they were fitted")
    constants: dict[str, Figure] = Field({}, description="By name, as in moebench.cost.calibrated.Constants")
    all_reduce: AllReduceTable | None = None
    far_link: Figure | None = Field(None, description="Bandwidth between nodes, one way, of one device, bytes/s")
    far_hop: Figure | None = Field(None, description="Startup latency of a ring step between nodes, s")
    models: tuple[Name, ...] = Field((), description="Models whose points are in the fit")
    factors: dict[str, dict[Literal["seen", "model", "machine", "source"], tuple[float, float]]] = Field(
        {},
        description="Measured over predicted, 10th and 90th percentile of left-out points, by metric: for models in "
        "the fit, for a new model, a new machine, a new source",
    )

    @model_validator(mode="after")
    def _whole(self) -> Fitted:
        if self.like is None and not (self.constants and self.all_reduce):
            raise ValueError("give constants and all_reduce, or like: a machine that has them")
        return self

    def of(self, other: Fitted, link_bytes_per_s: float | None) -> Fitted:
        """These constants, completed by those measured on another machine whose GPUs have the same link."""
        assert other.all_reduce is not None
        table = other.all_reduce.model_copy(update={"link_bytes_per_s": link_bytes_per_s})
        own = {"like": self.like, "date": other.date, "all_reduce": table}
        return other.model_copy(update=own | {k: v for k in ("far_link", "far_hop") if (v := getattr(self, k))})


class Hardware(Strict):
    """A machine type: ``config/hardware/NAME.yaml``.  ``null`` stands for unknown, never a guess."""

    name: Name
    title: str
    kind: Literal["gpu", "cpu"]
    gpu_model: str | None = Field(None, description="SLURM GRES type, e.g. h100")
    device_name: str | None = Field(
        None, description="Whole device name as reported by the driver; a run on another device is refused"
    )
    multiprocessors: Positive | None = Field(
        None, exclude=True, description="Multiprocessors (SMs) of one device; a run on part of a device is refused"
    )
    memory_bytes: float | None = Field(
        None,
        description="Memory of one device as its driver reports it; a run on a device with another size is refused",
    )
    bandwidth_bytes_per_s: float | None = Field(None, description="Memory bandwidth of one device")
    link_bytes_per_s: float | None = Field(None, description="One-way bandwidth between devices of a node")
    inter_node_bytes_per_s: float | None = Field(
        None, description="One-way bandwidth between nodes per device (usually limited by the cluster, not the device)"
    )
    peak: dict[str, Peak] = Field({}, description="Dense peak rates by data type")
    calibration: Calibrated | None = Field(
        None, description="Measured efficiencies and overheads, for calibrated times"
    )
    fitted: Fitted | None = Field(None, exclude=True, description="Constants of the calibrated cost model")
    price: Price | None = Field(
        None,
        exclude=True,
        description="Price for the cost per token; enter your own; null: unknown, and so is the cost",
    )
    devices_per_node: Positive = 1
    usable_memory_fraction: float = Field(0.9, gt=0, le=1, description="vLLM's gpu_memory_utilization")
    reference: str
