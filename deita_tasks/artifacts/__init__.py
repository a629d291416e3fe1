"""What the store keeps: pools, parts of scores and embeddings, selections; and the care of it."""
