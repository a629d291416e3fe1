"""What the flows are made of: load, score, embed, select, export.

The stages (the sub-packages) know neither Prefect nor each other; they meet in `records`.
`tasks` is the one module that turns them into Prefect tasks.
"""
