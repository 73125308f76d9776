"""What became of a draft, in words that may leave: nothing of a field its author may not read.

A version token names the registers that were written since the record was made; those of hidden
fields are left out, as the read path leaves them out (read/rows). The rest stays a good base: a
register that is not there counts as never changed, and its author cannot write it anyway.
"""

from __future__ import annotations

import msgspec

from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind
from appliance.kernel.profile import Mode
from appliance.kernel.stamps import Stamps
from appliance.write.draft import Draft
from appliance.write.outcome import Applied, Outcome, Rejected
from appliance.write.validate import UNPROFILED


def show_outcome(ctx: Ctx, draft: Draft) -> Outcome:
    """The outcome of a draft for its author; one with no outcome yet would be applied."""
    if draft.faults:
        return show_refusal(draft)
    outcome = draft.outcome
    if outcome is None:
        before = str(draft.before.stamps) if draft.before else ""
        outcome = Applied(draft.id, before, None, draft.command.op)
    if isinstance(outcome, Rejected) or ";" not in outcome.version or draft.kind is None:
        return outcome
    version = narrow_version(ctx, draft.kind, outcome.version)
    if version == outcome.version:
        return outcome
    return msgspec.structs.replace(outcome, version=version)


def show_refusal(draft: Draft) -> Rejected:
    """Its faults, which may repeat names and keys that were sent: always text that can leave."""
    faults = (msgspec.structs.replace(f, pointer=_sayable(f.pointer), detail=_sayable(f.detail))
              for f in draft.faults)  # fmt: skip
    return Rejected(draft.id, tuple(faults), draft.status)


def narrow_version(ctx: Ctx, kind: Kind, version: str) -> str:
    """The token without the registers of fields that the author may not read."""
    if ctx.door in UNPROFILED:
        return version
    modes = ctx.profile.grant(kind.key).fields
    readable = {f.register for f in kind.fields if modes.get(f.fid, Mode.HIDDEN) >= Mode.READ}
    stamps = Stamps.parse(version)
    assert stamps is not None, "made by the write path"
    names = {register.partition("/")[0] for register in stamps.live}
    hidden = {n for n in names if n not in readable and n[:1] not in "@!"}
    return str(stamps.without(hidden)) if hidden else version


def hides(ctx: Ctx, kind: Kind, name: str) -> bool:
    """Whether a field is not there for the author."""
    field = kind.by_name.get(name)
    if field is None or ctx.door in UNPROFILED:
        return False
    return ctx.profile.mode(kind.key, field) is Mode.HIDDEN


def _sayable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
