"""One hub and two branches as real nodes, joined by links that fail: what they promise, proved."""
