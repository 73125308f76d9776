"""The commands of `python -m connectors`: each says its lines and answers an exit code."""
