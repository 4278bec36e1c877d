"""Claims: the papers' sentences as comparisons of cells, evaluated on measurements and predictions.

``spec`` what ``config/claims`` may say; ``select`` which cells a claim compares, never across unlike ones;
``evaluate`` its value, interval and verdict; ``table`` the table ``claims``; ``show`` text for a terminal.
"""

from __future__ import annotations
