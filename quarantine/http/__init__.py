"""The plane's two doors: orders of the node, and downloads of people."""
