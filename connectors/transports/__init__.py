"""Ways to and from other systems' files. A transport moves bytes and knows nothing of formats."""
