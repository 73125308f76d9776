"""One file per engine: each sees one sort of danger, and says what it saw where."""
