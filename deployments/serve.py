"""Offer the flow to a Prefect server, from this process and without a work pool: `python -m deployments.serve`.

A run is then started from the server's UI, by filling in a form. Set PREFECT_API_URL to the server's address.
"""

from flows.select import select_subset

if __name__ == "__main__":
    select_subset.serve(name="select", description="Select the conversations of a pool that are worth fine-tuning on.")
