"""How the node talks to the content plane: signed orders out, notices in, tickets into Redis."""

from appliance.content.plane import LOST, ContentPlane

__all__ = ["LOST", "ContentPlane"]
