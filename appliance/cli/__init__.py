"""The program `nexus`."""
