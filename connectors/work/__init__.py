"""Connector workers: a plane of their own that knows a node by its public contract and a key."""
