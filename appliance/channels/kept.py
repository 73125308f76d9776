"""What a channel was given last, and the price that waits for a person.

A price that jumps is a slip of the keyboard until somebody says otherwise: the last one stays, and
stock goes on. The row of an offer also says since when it is as it is, so that who asks again is
given what has changed and what is gone, and nobody has to remember it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.channels.channel import Channel
from appliance.channels.look import Place
from appliance.db.columns import Column
from appliance.db.values import text_of
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx

_NO_VARIANT = UUID(int=0)
_NIL = str(_NO_VARIANT)
JUMP, BELOW = "price-jump", "below-minimum"
_COLUMNS = (
    "product_id::text, variant_id::text, sku, revision, "
    "(extract(epoch FROM changed_at) * 1000000)::bigint, is_gone, price::text, currency, "
    "held_price::text, held_code, released::text, turn, "
    "(extract(epoch FROM product_at) * 1000000)::bigint"
)
_RANGE = (
    f"SELECT {_COLUMNS} FROM channel_offer WHERE tenant_id = $1 AND channel_id = $2 "
    "AND (product_at, product_id) > ($3, $4)"
)
_UP_TO = Statement(f"{_RANGE} AND (product_at, product_id) <= ($5, $6)")
_TO_END = Statement(_RANGE)
_NOTE = Statement(
    "INSERT INTO channel_offer (tenant_id, channel_id, product_id, variant_id, product_at, sku, "
    "revision, changed_at, is_gone, price, currency, held_price, held_code, held_at, released, turn) "
    "SELECT $1, $2, p, v, a, s, r, $3, g = 1, pr::numeric, c, h::numeric, hc, "
    "CASE WHEN h IS NOT NULL THEN $3::timestamptz END, rl::numeric, t "
    "FROM unnest($4::uuid[], $5::uuid[], $6::timestamptz[], $7::text[], $8::text[], $9::bigint[], "
    "$10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[]) "
    "AS u(p, v, a, s, r, g, pr, c, h, hc, rl, t) ON CONFLICT (tenant_id, channel_id, product_id, "
    "variant_id) DO UPDATE SET product_at = EXCLUDED.product_at, sku = EXCLUDED.sku, "
    "revision = EXCLUDED.revision, changed_at = CASE WHEN channel_offer.revision = "
    "EXCLUDED.revision AND channel_offer.is_gone = EXCLUDED.is_gone THEN channel_offer.changed_at "
    "ELSE EXCLUDED.changed_at END, is_gone = EXCLUDED.is_gone, price = EXCLUDED.price, "
    "currency = EXCLUDED.currency, held_price = EXCLUDED.held_price, "
    "held_code = EXCLUDED.held_code, held_at = CASE WHEN EXCLUDED.held_price IS NULL THEN NULL "
    "ELSE COALESCE(channel_offer.held_at, EXCLUDED.held_at) END, released = CASE WHEN "
    # What somebody has released meanwhile stands, and so does what somebody has asked for again.
    "channel_offer.turn > EXCLUDED.turn THEN channel_offer.released ELSE EXCLUDED.released END, "
    "turn = greatest(channel_offer.turn, EXCLUDED.turn)"
)
_EPOCH_US = 1_000_000


class Kept(msgspec.Struct, frozen=True):
    """One row. Moments in microseconds of Unix time; `product_at`: when its product was made."""

    sku: str = ""
    revision: str = ""
    changed_at: int = 0
    is_gone: bool = False
    price: Decimal | None = None
    currency: str = ""
    held_price: Decimal | None = None
    held_code: str = ""
    released: Decimal | None = None
    turn: int = 0
    product_at: int = 0


class Judged(msgspec.Struct, frozen=True):
    """The price that is given, and the one that waits, with its reason."""

    price: Decimal | None
    held: Decimal | None = None
    code: str = ""
    released: Decimal | None = None


NEVER = Kept()
# A product, and its variant or "": as texts, which cost a tenth of UUIDs to compare.
Key = tuple[str, str]


def judge_price(channel: Channel, wanted: Decimal | None, kept: Kept) -> Judged:
    """Which price goes out: the wanted one, or the last while the wanted one waits."""
    if wanted is None:
        return Judged(None)
    if wanted == kept.released:
        return Judged(wanted, released=wanted)
    last = kept.price if kept.currency == channel.currency else None
    if channel.price_min is not None and wanted < channel.price_min:
        return Judged(last, wanted, BELOW)
    most = channel.price_change_max
    if last and most is not None and abs(wanted - last) * 100 > most * last:
        return Judged(last, wanted, JUMP)
    return Judged(wanted)


def range_call(ctx: Ctx, channel: UUID, after: Place, upto: Place | None) -> Call:
    """Rows of the products behind a place, up to another or to the end."""
    if upto is None:
        return _TO_END, (ctx.tenant, channel, *after)
    return _UP_TO, (ctx.tenant, channel, *after, *upto)


def read_kept(rows: Rows) -> dict[Key, Kept]:
    """The rows by product and variant."""
    found = {}
    for row in rows:
        product, variant, sku, revision, at, gone, price, currency, held, code, *rest = row
        found[(text_of(product), text_of(variant).replace(_NIL, ""))] = Kept(
            text_of(sku), text_of(revision), int(at or 0), gone == b"t", _amount(price),
            text_of(currency), _amount(held), text_of(code), _amount(rest[0]), int(rest[1] or 0),
            int(rest[2] or 0),
        )  # fmt: skip
    return found


def note_call(ctx: Ctx, channel: Channel, noted: Sequence[tuple[Key, Kept]]) -> Call:
    """Keep rows as they are given now."""

    def texts(values: Iterable[Decimal | None]) -> Column:
        return Column("text", [f"{v:f}" if v is not None else None for v in values])

    kept = [k for _, k in noted]
    return _NOTE, (
        ctx.tenant, channel.id, ctx.at,
        Column("uuid", [UUID(p) for (p, _), _ in noted]),
        Column("uuid", [UUID(v) if v else _NO_VARIANT for (_, v), _ in noted]),
        Column("timestamptz", [moment_of(k.product_at) for k in kept]),
        Column("text", [k.sku for k in kept]), Column("text", [k.revision for k in kept]),
        Column("bigint", [int(k.is_gone) for k in kept]), texts(k.price for k in kept),
        Column("text", [k.currency for k in kept]), texts(k.held_price for k in kept),
        Column("text", [k.held_code for k in kept]), texts(k.released for k in kept),
        Column("bigint", [k.turn for k in kept]),
    )  # fmt: skip


def moment_of(at: int) -> datetime:
    """The moment of microseconds of Unix time."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at)


def micros(at: datetime) -> int:
    """Microseconds of Unix time, exactly."""
    past = at - datetime.fromtimestamp(0, at.tzinfo)
    return (past.days * 86_400 + past.seconds) * _EPOCH_US + past.microseconds


def _amount(value: bytes | None) -> Decimal | None:
    return Decimal(value.decode()) if value is not None else None
