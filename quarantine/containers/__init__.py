"""Containers taken apart strictly: one file per format, all under one budget of real bytes."""
