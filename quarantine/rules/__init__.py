"""Our own YARA-X rules as text, and the signed pack in which rules and deny lists travel."""
