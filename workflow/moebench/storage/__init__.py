"""Files on disk: written whole or not at all, locks, full disks, staged folders."""
