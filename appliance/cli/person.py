"""`nexus person …`: the way back for somebody whom nobody in the tenant may help.

A code makes whoever has it that person, so in a tenant it is given only to people within one's
own rights. The last owner who forgot the password is helped by whoever runs the machine.
"""

from __future__ import annotations

import asyncio

from appliance.access import codes
from appliance.cli.node import opened, read_settings, system_context


def reset(email: str, *, tenant: str, data: str | None = None) -> None:
    """A one-time code that sets a new password, printed this once. A second factor stays."""

    async def go() -> codes.Invited:
        async with opened(read_settings(data)) as node:
            ctx = await system_context(node, tenant)
            person = await codes.find_person(node.db, ctx.tenant, email)
            return await codes.reset(node.db, ctx, person)

    made = asyncio.run(go())
    print(f"Code for {email}, good until {made.expires_at:%Y-%m-%d %H:%M} UTC: {made.code}")
    print("Send it with the new password to POST /api/v1/invitations/accept.")
