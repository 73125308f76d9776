"""Exports: all rows of a query as they stream out, under the right to export.

Reading is not exporting: besides the capability, the profile's `export` scope of the kind says
which rows may leave in bulk (read/export). Each export is an audit event before its first byte.
"""

from __future__ import annotations

from litestar.response.base import ASGIResponse

from appliance.audit import audit_calls
from appliance.base.errors import Forbidden, NotAcceptable
from appliance.http.answers import Stream
from appliance.http.ask import Ask
from appliance.kernel.query import Query
from appliance.read import MEDIA as FORMS
from appliance.read import export as export_rows

MEDIA = tuple(media.partition(";")[0] for media in FORMS.values())
_FORM = dict(zip(MEDIA, FORMS, strict=True))
JSON = MEDIA[0]
_RANGES = {"*/*": JSON, "application/*": JSON, "text/*": "text/csv"}


def choose_media(accept: str | None) -> str:
    """The representation asked for. Raises NotAcceptable."""
    if accept is None or accept in ("*/*", JSON):
        return JSON
    best, weight = "", 0.0
    for part in accept.split(","):
        name, _, rest = part.strip().partition(";")
        found = _RANGES.get(name.strip().lower(), name.strip().lower())
        given = _weight(rest)
        if found in MEDIA and given > weight:
            best, weight = found, given
    if not best:
        raise NotAcceptable(f"A query is answered as one of {', '.join(MEDIA)}.")
    return best


def _weight(rest: str) -> float:
    for parameter in rest.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q" and value.isascii() and value.replace(".", "", 1).isdecimal():
            return min(1.0, float(value))
    return 1.0


async def export(ask: Ask, query: Query, media: str) -> ASGIResponse:
    """All rows in a form. Raises Forbidden; what the query says, before the first byte."""
    ctx, form = ask.ctx, _FORM[media]
    if not ctx.profile.may("export.run"):
        raise Forbidden("Your profile may not export; read the records page by page as JSON.")
    chunks = await export_rows(ask.node.db, ctx, query, form, guard=ask.gate)
    async with ask.node.db.transaction(ctx.tenant) as tx:
        details: dict[str, object] = {"kind": query.source, "form": form}
        await tx.run(*audit_calls(ctx.tenant, "records.exported", actor=ctx.actor, subject=query.source,
                                  request_id=ctx.request_id, details=details))  # fmt: skip
    name = f"{query.source.replace('.', '-')}.{form}"
    return Stream(chunks, FORMS[form], {"Content-Disposition": f'attachment; filename="{name}"'})
