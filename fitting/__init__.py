"""Fits the weights of the packaged mini scorers; not part of the package."""
