"""`nexus staff …`: accounts of the platform's own staff, who see a tenant only when it lets them."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from uuid import UUID

from appliance.access import staff
from appliance.base.errors import Refused
from appliance.cli.node import opened, read_password, read_settings
from appliance.db.database import Database


def add(
    *, email: str, name: str, password_file: Path | None = None, data: str | None = None
) -> None:
    """Make an account: password and authenticator secret are printed this once."""
    password = read_password(password_file) or secrets.token_urlsafe(15)

    async def go() -> staff.NewStaff:
        settings = read_settings(data)
        async with opened(settings) as node:
            return await staff.create_staff(node.db, email, name, password, settings.login)

    made = asyncio.run(go())
    print(f"Made {email} ({made.id}).")
    if password_file is None:
        print(f"Password: {password}")
    print(f"Authenticator: {made.totp_uri}")


def suspend(email: str, *, data: str | None = None) -> None:
    """End an account, its sessions and every grant it has, in all tenants."""

    async def go() -> list[str]:
        async with opened(read_settings(data)) as node:
            return await staff.suspend_staff(node.db, await _find(node.db, email))

    missed = asyncio.run(go())
    print(f"Suspended {email}.")
    if missed:
        print(f"Not reached, repeat for: {', '.join(missed)}")


async def _find(db: Database, email: str) -> UUID:
    found = await staff.find_staff(db, email)
    if found is None:
        raise Refused("There is nobody of the platform's staff with this address.")
    return found
