"""What runs: Prefect flows that wire the tasks of `deita_tasks` together, and the command line."""

import os

# Of the temporary server that runs a flow if no server is configured. 20 s, the default, are too
# short on a busy machine. Telemetry writes to the database while that is being set up, which ends
# in a traceback ("database is locked"); offline, it ends in another.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
