"""The report: what a person looks at to see what a selection is."""
