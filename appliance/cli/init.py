"""`nexus init`: a tenant and its first owner."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from appliance.base.settings import Settings
from appliance.cli.node import opened, read_password, read_settings
from appliance.install import NewTenant, create_tenant


def init(
    *,
    tenant: str,
    name: str,
    email: str,
    password_file: Path | None = None,
    template: str = "multi_branch_sales",
    data: str | None = None,
) -> None:
    """Make a tenant.

    Parameters
    ----------
    tenant: its short name in addresses and at sign-in.
    name: its full name.
    email: the first owner's address.
    password_file: a file with the owner's password; without it one is generated and printed.
    template: the name of a shipped template; `nexus template list` shows them.
    """
    settings = read_settings(data)
    password = read_password(password_file)
    given = password or secrets.token_urlsafe(12)
    new = NewTenant(
        slug=tenant, name=name, email=email, password=given, template=template,
        must_change=password is None,
    )  # fmt: skip
    asyncio.run(_init(settings, new))
    print(f"Tenant {tenant} is ready; its owner is {email}.")
    if password is None:
        print(f"One-time password: {given}")


async def _init(settings: Settings, new: NewTenant) -> None:
    async with opened(settings) as node:
        chars = settings.login.password_chars_min
        await create_tenant(node.db, node.servers, new, origin=node.origin, chars_min=chars)
