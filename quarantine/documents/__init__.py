"""Reading of office files for the office engine: what could act in them, by sort of file."""
