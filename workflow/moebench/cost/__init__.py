"""The cost model: parameters, memory and time of cells, from architecture and hardware alone.

Pure functions on numpy arrays: :mod:`inputs` (what they take), :mod:`params`, :mod:`memory`, :mod:`collectives`,
:mod:`roofline`, :mod:`qs` (the qs inequality), :mod:`search` (parallelism).
"""

from __future__ import annotations
