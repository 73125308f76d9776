"""The content plane: its engines, its sandbox, its verdicts."""
