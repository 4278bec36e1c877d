"""Energy, power, clocks and temperature of the devices during measurements, read by a process beside the engine.

``sidecar`` is the driver's end, ``process`` the process, ``nvml`` and ``rapl`` what it reads, ``window`` what becomes
of the samples of a run.  Standard library, and nvidia-ml-py where there are GPUs.
"""
