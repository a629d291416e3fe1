"""Fixtures of flow tests."""

from tests.support.flow_fixtures import again, base, tiny

__all__ = ["again", "base", "tiny"]
