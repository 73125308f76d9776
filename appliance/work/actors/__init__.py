"""The job handlers, one file per queue; importing the package registers them all."""

from appliance.work.actors import reassign, upkeep

__all__ = ["reassign", "upkeep"]
