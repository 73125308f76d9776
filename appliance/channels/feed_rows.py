"""Feeds as rows: asked for, made, served, held."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from appliance.channels.sight import sight_of
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Call, Row, Statement
from appliance.kernel.context import Ctx

# A feed that is polled is made anew when it is older; a job that is not heard of is queued again.
FRESH_S, LOST_S = 900, 1_800
_DAY_S = 86_400
_COLUMNS = (
    "channel_id::text, form, sight, state, detail, file, offers, bytes, held_file, held_offers, "
    "held_bytes, extract(epoch FROM made_at)::text, extract(epoch FROM published_at)::text"
)
_ONE = "tenant_id = $1 AND channel_id = $2 AND form = $3 AND sight = $4"
_POLLED = Statement(
    "INSERT INTO channel_feed (tenant_id, channel_id, form, sight, actor, profile_id, units) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7::uuid[]) ON CONFLICT (tenant_id, channel_id, form, sight) "
    "DO UPDATE SET polled_at = now(), actor = EXCLUDED.actor, profile_id = EXCLUDED.profile_id, "
    f"units = EXCLUDED.units RETURNING {_COLUMNS}"
)
_IS_DUE = (
    f"(made_at IS NULL OR made_at < now() - make_interval(secs => {FRESH_S})) "
    f"AND (queued_at IS NULL OR queued_at < now() - make_interval(secs => {LOST_S}))"
)
_QUEUE = Statement(f"UPDATE channel_feed SET queued_at = now() WHERE {_ONE} AND {_IS_DUE}")
_QUEUE_ALL = Statement(
    f"UPDATE channel_feed SET queued_at = now() WHERE tenant_id = $1 AND {_IS_DUE} "
    f"AND polled_at > now() - make_interval(secs => {_DAY_S}) RETURNING channel_id::text, form, "
    "sight, actor::text, profile_id::text, array_to_json(units)::text"
)
_LOCK = Statement(f"SELECT {_COLUMNS} FROM channel_feed WHERE {_ONE} FOR UPDATE")
_OF_CHANNELS = Statement(
    f"SELECT {_COLUMNS} FROM channel_feed WHERE tenant_id = $1 AND channel_id = ANY($2::uuid[]) "
    "ORDER BY channel_id, form, sight"
)
_PUBLISH = Statement(
    "UPDATE channel_feed SET state = 'published', detail = '', file = $5, offers = $6, bytes = $7, "
    "held_file = '', held_offers = 0, held_bytes = 0, made_at = now(), published_at = now(), "
    f"queued_at = NULL WHERE {_ONE}"
)
_HOLD = Statement(
    "UPDATE channel_feed SET state = 'held', detail = $8, held_file = $5, held_offers = $6, "
    f"held_bytes = $7, made_at = now(), queued_at = NULL WHERE {_ONE}"
)
_FAIL = Statement(
    "UPDATE channel_feed SET state = 'failed', detail = $5, made_at = now(), queued_at = NULL "
    f"WHERE {_ONE}"
)
_RELEASE = Statement(
    "UPDATE channel_feed SET state = 'published', detail = '', file = held_file, "
    "offers = held_offers, bytes = held_bytes, held_file = '', held_offers = 0, held_bytes = 0, "
    f"published_at = now() WHERE {_ONE} AND held_file <> ''"
)
_STALE = Statement(
    "UPDATE channel_feed SET made_at = NULL WHERE tenant_id = $1 AND channel_id = $2"
)


class Feed(msgspec.Struct, frozen=True):
    """One feed. `state`: asked, published, held (the last one goes on being served), failed."""

    channel: UUID
    form: str
    sight: str
    state: str
    detail: str
    file: str
    offers: int
    bytes: int
    held_file: str
    held_offers: int
    held_bytes: int
    made_at: datetime | None
    published_at: datetime | None

    @property
    def place(self) -> tuple[UUID, str, str]:
        """What it is known by."""
        return self.channel, self.form, self.sight


class Due(msgspec.Struct, frozen=True):
    """A feed that is to be made anew, and in whose name."""

    channel: str
    form: str
    sight: str
    actor: UUID
    profile: str
    units: list[str]


async def poll(db: Database, ctx: Ctx, channel: UUID, form: str) -> tuple[Feed, bool]:
    """The feed that this reader is served, and whether it is for the caller to queue its making."""
    place = (ctx.tenant, channel, form, sight_of(ctx))
    asked = (*place, ctx.actor, UUID(ctx.profile.id), sorted(ctx.units))
    async with db.transaction(ctx.tenant) as tx:
        rows, due = await tx.run((_POLLED, asked), (_QUEUE, place), commit=True)
    row = rows.first()
    assert row is not None, "it was just made"
    return _feed(row), bool(due.affected)


async def take_due(db: Database, tenant: UUID) -> list[Due]:
    """The feeds of a tenant that are polled and old; the caller queues them."""
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_QUEUE_ALL, (tenant,)), commit=True)
    found = ([text_of(v) for v in row] for row in rows)
    return [
        Due(channel, form, sight, UUID(actor), profile,
            msgspec.json.decode(units or "[]", type=list[str]))
        for channel, form, sight, actor, profile, units in found
    ]  # fmt: skip


async def feeds_of(db: Database, tenant: UUID, channels: list[UUID]) -> list[Feed]:
    """All feeds of some channels."""
    (rows,) = await db.read(tenant, (_OF_CHANNELS, (tenant, channels)))
    return [_feed(row) for row in rows]


def lock_call(tenant: UUID, place: tuple[UUID, str, str]) -> Call:
    """The row, locked."""
    return _LOCK, (tenant, *place)


def publish_call(tenant: UUID, feed: Feed, file: str, offers: int, size: int) -> Call:
    """From now on this file is served."""
    return _PUBLISH, (tenant, *feed.place, file, offers, size)


def hold_call(tenant: UUID, feed: Feed, made: tuple[str, int, int], detail: str) -> Call:
    """A file that waits for a person: its name, offers and bytes."""
    return _HOLD, (tenant, *feed.place, *made, detail)


def fail_call(tenant: UUID, place: tuple[UUID, str, str], detail: str) -> Call:
    """There is no feed of this try, and why."""
    return _FAIL, (tenant, *place, detail)


def release_call(tenant: UUID, feed: Feed) -> Call:
    """What waits is served."""
    return _RELEASE, (tenant, *feed.place)


def stale_call(tenant: UUID, channel: UUID) -> Call:
    """All feeds of a channel are to be made anew with the next poll."""
    return _STALE, (tenant, channel)


def read_feed(row: Row | None) -> Feed | None:
    """A locked row."""
    return _feed(row) if row is not None else None


def _feed(row: Row) -> Feed:
    t = [text_of(v) for v in row]
    return Feed(
        channel=UUID(t[0]), form=t[1], sight=t[2], state=t[3], detail=t[4], file=t[5],
        offers=int(t[6]), bytes=int(t[7]), held_file=t[8], held_offers=int(t[9]),
        held_bytes=int(t[10]), made_at=_moment(t[11]), published_at=_moment(t[12]),
    )  # fmt: skip


def _moment(text: str) -> datetime | None:
    # Seconds are enough: HTTP says no less.
    return datetime.fromtimestamp(int(text.partition(".")[0]), UTC) if text else None
