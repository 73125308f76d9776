"""Reviews: what the engines would not let out, two people may; what they let out, one may recall.

A release needs two reviewers with a reason each, neither of them who brought the file. It is then
`restricted`: a download for the one who brought it and for reviewers, never shown in a page. A
rejection needs one. Nobody releases what an engine rejected.
"""

from __future__ import annotations

from appliance.base.clock import now
from appliance.base.errors import Clash, FieldFault, Forbidden, Invalid
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.files.copies import look_here
from appliance.files.incidents import open_incident
from appliance.files.rows import File, find_file, move
from appliance.files.states import DOWNLOADABLE, REVIEWABLE, FileState
from appliance.files.upload import job_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json

RELEASE, REJECT, RECALL, RESCAN = "release", "reject", "recall", "rescan"
DECISIONS = (RELEASE, REJECT, RECALL, RESCAN)
_REASON_MIN, _REASON_MAX = 8, 500


async def review(
    db: Database, ctx: Ctx, plane: ContentPlane, file: File, decision: str, reason: str
) -> File:
    """One reviewer's word. Raises Invalid, Forbidden, Clash, Unavailable."""
    if decision not in DECISIONS:
        detail = f"Expected {', '.join(DECISIONS)}."
        raise Invalid(detail, faults=(FieldFault("/decision", "out_of_range", detail),))
    if decision == RESCAN:
        await look_here(db, ctx, plane, file)
        await plane.scan(job_of(file, ctx.tenant, priority=0))
        return file
    if not _REASON_MIN <= len(reason.strip()) <= _REASON_MAX:
        detail = f"Say why, in {_REASON_MIN} to {_REASON_MAX} characters."
        raise Invalid(detail, faults=(FieldFault("/reason", "required", detail),))
    if decision == RELEASE:
        await _release(db, ctx, file, reason)
    elif decision == REJECT:
        await move(db, ctx, file, FileState.REJECTED, "file.rejected", {"reason": reason})
    else:
        if file.state not in DOWNLOADABLE:
            raise Clash(
                f"This file is {file.state}; there is nothing to recall.", code="file.state"
            )
        # Who let it out before does not count again: it takes two anew.
        values: dict[str, Json] = {"reason": reason, "review": None}
        await move(db, ctx, file, FileState.RECALLED, "file.recalled", values)
        await open_incident(db, ctx, file, now(), [], by=str(ctx.actor))
    found = await find_file(db, ctx.tenant, file.id)
    assert found is not None, "files are not removed"
    return found


async def _release(db: Database, ctx: Ctx, file: File, reason: str) -> None:
    if file.state not in REVIEWABLE:
        raise Clash(f"A file that is {file.state} is not reviewed.", code="file.state")
    if file.verdict.get("verdict") == "rejected":
        raise Forbidden("An engine rejected this file; nobody releases it.", code="file.rejected")
    if file.owner == ctx.actor:
        raise Forbidden("Somebody else reviews what you brought.", code="file.own")
    first = file.review.get("by")
    if first == str(ctx.actor):
        raise Forbidden("Another reviewer has to agree.", code="file.four_eyes")
    word: dict[str, Json] = {"by": str(ctx.actor), "at": now().isoformat(), "reason": reason}
    if first is None:
        await move(db, ctx, file, file.state, "file.review_begun", {"review": word})
        return
    both: dict[str, Json] = {**file.review, "agreed": word}
    await move(db, ctx, file, FileState.RESTRICTED, "file.restricted", {"review": both})
