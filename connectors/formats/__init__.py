"""Formats: bytes into a stream of rows, each cell with what it is and where it stands."""
