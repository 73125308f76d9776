"""The job handlers, one file per queue; importing the package registers them all."""

from appliance.work.actors import intake, reassign, upkeep

__all__ = ["intake", "reassign", "upkeep"]
