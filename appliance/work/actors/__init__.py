"""The job handlers, one file per queue; importing the package registers them all."""

from appliance.work.actors import banking, channels, conflicts, exchange, intake, reassign, upkeep

__all__ = ["banking", "channels", "conflicts", "exchange", "intake", "reassign", "upkeep"]
