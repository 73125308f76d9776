"""The floor everything stands on: errors, settings, clock, ids, limits, logs, roles."""
