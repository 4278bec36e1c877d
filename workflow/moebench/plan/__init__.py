"""The plan of a study, from its grids to jobs: ``make`` (the whole), ``models`` (which weights), ``names`` (ids),
``checks`` (what is refused), ``jobs``, ``file`` (read it), ``keep`` (write it under its digest).
"""
