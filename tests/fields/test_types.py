"""The generic suite, once for every type in the registry."""

from tests.fields.suite import *  # noqa: F403
