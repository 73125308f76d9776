"""Real parts for every test: one PostgreSQL and one Valkey for the run, a tenant in one line."""
