"""Embedded PostgreSQL, Valkey and clamd, and the supervisor of `nexus up`."""
