"""The content plane: it takes bytes, holds them, proves them clean, and serves them for a ticket."""
