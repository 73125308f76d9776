"""What a reader may take to a channel, as a short name: whoever may take the same shares a feed.

A feed is a file that is made once and served often. It is served to nobody who may take less than
whoever it was made for, so it goes by this name; rights that change lead to another file.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from appliance.kernel.context import Ctx
from appliance.kernel.profile import ScopeKind

_KINDS = (
    "sales_channel", "channel_item", "external_ref", "product", "variant", "barcode", "brand",
    "product_category", "price_type", "price", "stock_move", "reservation",
)  # fmt: skip
_TENANT_WIDE = frozenset({ScopeKind.ALL, ScopeKind.NONE})


def sight_of(ctx: Ctx) -> str:
    """Sixteen hexadecimal digits."""
    told: list[object] = []
    is_bound = False
    for kind in _KINDS:
        grant = ctx.profile.grant(kind)
        scopes = [ctx.profile.scope(kind, action) for action in ("read", "export")]
        is_bound = is_bound or any(s.kind not in _TENANT_WIDE for s in scopes)
        fields = sorted((name, int(mode)) for name, mode in grant.fields.items())
        told.append((kind, [(s.kind.value, s.where) for s in scopes], fields))
    if is_bound:
        # Rows are his by where he is, by what is below it, and by who he is.
        told.append((sorted(map(str, ctx.units)), sorted(map(str, ctx.subtree)), str(ctx.actor)))
    return sha256(msgspec.json.encode(told)).hexdigest()[:16]
