"""The parts of one serving process of the plane."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import redis.asyncio as aioredis

from quarantine import health
from quarantine.health import ScannerState
from quarantine.settings import Settings
from quarantine.signing import Signer
from quarantine.vault import Vault


@dataclass
class Writer:
    """A part on its way in: `heard` is when its last bytes came, `end` breaks it off."""

    end: asyncio.Timeout
    heard: float


@dataclass
class Plane:
    """`closing` is set when the process is told to stop; `writers` are the parts that come in."""

    settings: Settings
    vault: Vault
    signer: Signer
    redis: aioredis.Redis
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    writers: dict[UUID, Writer] = field(default_factory=dict)

    async def scanner_state(self) -> ScannerState:
        """What the working process last found out about the scanner."""
        return await self.vault.ledger.run(health.read_state)
