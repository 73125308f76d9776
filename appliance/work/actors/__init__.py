"""The job handlers, one file per queue; importing the package registers them all."""

from appliance.work.actors import conflicts, exchange, intake, reassign, upkeep

__all__ = ["conflicts", "exchange", "intake", "reassign", "upkeep"]
