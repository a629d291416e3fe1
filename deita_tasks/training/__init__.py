"""Fitting the scorers that ship with the package."""
