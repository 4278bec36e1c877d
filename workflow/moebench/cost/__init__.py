"""The cost model: parameters, memory and time of a cell, from architecture and hardware alone."""

from __future__ import annotations
