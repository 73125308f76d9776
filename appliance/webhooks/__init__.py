"""Webhooks: what changed, told to other systems by HTTP, at least once and in order per record.

Events are made of the log from a cursor, so none is lost; each is read through the subscriber's
profile when it is sent, so nothing leaves that the profile may not see at that moment. The worker's
courier (`appliance.work.courier`) calls `deliver`; the API and the command line call `manage`.
"""

from appliance.webhooks.shape import ACTIONS, Changes, Made, NewWebhook, Replay, Watch, WebhookView

__all__ = ["ACTIONS", "Changes", "Made", "NewWebhook", "Replay", "Watch", "WebhookView"]
