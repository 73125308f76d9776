"""What every connector stands on: the contract of staged rows, and the throw-away child."""
