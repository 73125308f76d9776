"""Queue `reassign`: make the feed of a channel anew, in the name of whoever polls it."""

from __future__ import annotations

from uuid import UUID

from appliance.access.acting import act_as
from appliance.base.errors import Invalid
from appliance.base.ids import parse_uuid
from appliance.channels.feeds import make_feed
from appliance.kernel.context import Door
from appliance.work.node import WorkNode
from appliance.work.registry import Payload, job
from appliance.work.run import Run


@job("channels.feed", queue="reassign")
async def make(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{channel, form, sight, by, profile, units}`. Again makes it again."""
    channel, person = parse_uuid(payload.get("channel")), parse_uuid(payload.get("by"))
    profile, units = parse_uuid(payload.get("profile")), payload.get("units")
    form, sight = payload.get("form"), payload.get("sight")
    if channel is None or person is None or profile is None or not isinstance(units, list):
        raise Invalid("The job does not say which feed, or in whose name.")
    known = frozenset(u for text in units if (u := parse_uuid(text)) is not None)
    ctx = await act_as(
        node.db, tenant, person, profile, known, origin=node.origin, door=Door.HTTP
    )  # fmt: skip
    made = await make_feed(
        node.db, ctx, channel, str(form), data_dir=node.data_dir, sight=str(sight)
    )
    await run.report(made.offers, made.offers)
