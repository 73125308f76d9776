"""One folder per system; the folder is the connector."""
