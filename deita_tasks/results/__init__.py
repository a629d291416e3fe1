"""What a run writes to its output: a selection, a sweep, versions; and `explain`, which reads one."""
