"""Programs that the benchmarks start as processes of their own: what the installed ones do not do, or do not tell."""
