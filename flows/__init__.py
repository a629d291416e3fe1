"""What runs: Prefect flows that wire the tasks of `deita_tasks` together, and the command line."""
