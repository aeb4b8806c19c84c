"""Work of several processes: files written whole, locks, and engines that run jobs."""
