"""Snakemake that asks SLURM for its jobs every second.

The executor plugin waits 10 s longer after each answer in which no job has ended, up to three minutes.  That suits jobs
of hours on a shared controller; here it would notice the end of a job the later, the busier the machine is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

PAUSE_S = 1


async def pause(executor: Any) -> None:
    """Between two questions."""
    await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    RemoteExecutor.sleep = pause  # type: ignore[method-assign]
    main()
