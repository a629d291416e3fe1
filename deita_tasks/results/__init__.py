"""What a run writes to its output folder: selections, sweeps, versions; and how to read them."""
