"""Energy of a CPU machine, from RAPL's counters (Linux kernel: Documentation/power/powercap).

Covers packages and, if it has a separate counter, memory: of the whole machine, including other users' jobs.  Since
Linux 5.10 only root may read the counters, unless an administrator allows it.
"""

from __future__ import annotations

from pathlib import Path

from moebench.formats.record import Devices
from moebench.measure.telemetry.window import Reading

FOLDER = Path("/sys/class/powercap")


class Zone:
    """A counter in microjoules that starts again from 0 beyond its range."""

    def __init__(self, folder: Path):
        self.name = (folder / "name").read_text().strip()
        self._counter = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._turns = self.raw(), 0

    def raw(self) -> int:
        """The counter's current value, in microjoules.  Raises OSError or ValueError."""
        return int(self._counter.read_text())

    def joules(self) -> float | None:
        """Energy since an arbitrary time before the first call, J; call it before the counter wraps around (a
        minute)."""
        try:
            now = self.raw()
        except (OSError, ValueError):
            return None
        self._turns += now < self._last
        self._last = now
        return (now + self._turns * self._range) / 1e6


class Rapl:
    """All readable zones; ``zones`` is empty if there are none."""

    def __init__(self, folder: Path = FOLDER):
        self.zones = []
        for path in sorted(folder.glob("intel-rapl:*")):  # subzones are listed too; psys holds the packages
            try:
                zone = Zone(path)
            except (OSError, ValueError):
                continue
            if zone.name.startswith("package") or zone.name == "dram":
                self.zones.append(zone)

    @property
    def nothing(self) -> str:
        """Why there is nothing to read; empty otherwise."""
        return "" if self.zones else "no readable RAPL counter"

    def facts(self) -> Devices:
        """The source and its zones."""
        return {"source": "rapl", "devices": [{"name": zone.name} for zone in self.zones]}

    def read(self) -> list[Reading]:
        """The energy of every zone."""
        return [{"energy_j": zone.joules()} for zone in self.zones]
