"""Sales channels: what a marketplace or a feed is given, and what became of it."""
