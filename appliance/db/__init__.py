"""The only package that opens a connection: wire, sessions, placements, tables, migrations."""
