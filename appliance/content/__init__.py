"""How the node talks to the content plane: signed orders out, notices in, tickets into Redis."""

from appliance.content.plane import ContentPlane

__all__ = ["ContentPlane"]
