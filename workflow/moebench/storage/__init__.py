"""Files on disk: atomic writes, locks, full disks, staged folders."""
