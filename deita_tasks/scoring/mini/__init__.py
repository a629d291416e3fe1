"""The scorers that ship with the package: complexity and quality on a laptop."""
