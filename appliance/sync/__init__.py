"""Replication between nodes: what goes out, what comes in, who may, and what waits for a person."""
