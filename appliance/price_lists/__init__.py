"""Price lists that leave: prices in force by type, branch and date, for people and for systems."""

from collections.abc import AsyncIterator

from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.price_lists.commerceml import write_offers
from appliance.price_lists.files import MEDIA as FILES
from appliance.price_lists.files import write
from appliance.price_lists.offers import read_offers
from appliance.price_lists.rows import Asked, List, read_list
from appliance.read import Guard

MEDIA = {**FILES, "xml": "application/xml; charset=utf-8"}


async def export_list(
    db: Database, ctx: Ctx, asked: Asked, form: str, *, system: str = "",
    guard: Guard | None = None,
) -> AsyncIterator[bytes]:  # fmt: skip
    """A price list in pieces, in a form of MEDIA; in XML products known to `system` go by their id
    there. Raises NotAcceptable, Refused, Invalid, Forbidden before the first piece.
    """
    if form == "xml":
        return write_offers(ctx, asked, await read_offers(db, ctx, asked, system, guard=guard))
    return write(await read_list(db, ctx, asked, guard=guard), form)


__all__ = ["MEDIA", "Asked", "List", "export_list", "read_list", "write"]
