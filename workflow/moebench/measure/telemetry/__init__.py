"""Energy, power, clocks and temperature of the devices during measurements, read by a process beside the engine.

``sidecar`` is the driver's side, ``process`` the process, ``nvml`` and ``rapl`` are its sources, and ``window`` reduces
the samples of a run.  Needs the standard library, and nvidia-ml-py if there are GPUs.
"""
