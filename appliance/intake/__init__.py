"""Imports: every one is a run that is read, planned, approved, applied, and can be taken back."""
