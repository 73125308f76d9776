"""ISO 20022 pain.001: credit transfers out, and read back."""

from connectors.systems.pain001.reader import read_batch
from connectors.systems.pain001.writer import TransferWriter

__all__ = ["TransferWriter", "read_batch"]
