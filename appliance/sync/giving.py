"""What a hub sends a site in one answer: frames after its cursors, as far as the room goes."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import msgspec

from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.attesting import Signer, attest
from appliance.sync.heads import Heads
from appliance.sync.nodes import PeerNode
from appliance.sync.outgoing import Veil, read_after
from appliance.sync.scope import StreamGrant, strip

SCHEMA = "schema"


class Giving:
    """One answer. `notices` is what it has to tell beside the frames."""

    def __init__(
        self,
        db: Database,
        site: PeerNode,
        tenant: UUID,
        grants: dict[UUID, StreamGrant],
        heads: Heads,
        signer: Signer | None = None,
    ) -> None:
        self._db, self._site, self._tenant = db, site, tenant
        self._grants, self._heads, self._signer = grants, heads, signer
        self.notices: list[say.Notice] = []

    async def give(self, asked: say.Exchange, room: int) -> list[say.Delivery]:
        """Frames after each cursor, in the order asked for, as far as `room` bytes go. A stream is
        read once, however often it is named.
        """
        found: list[say.Delivery] = []
        for pull in {pull.stream: pull for pull in asked.down}.values():
            grant, head = self._grants.get(pull.stream), self._heads.get(pull.stream)
            if grant is None or head is None or head.head <= pull.cursor or room <= 0:
                continue
            if pull.cursor < head.floor:
                self.notices.append(say.behind(head.floor, pull.stream))
                continue
            mask = grant.mask
            batch = await read_after(
                self._db, self._tenant, pull.stream, pull.cursor,
                without=frozenset() if pull.own else self._site.origins, max_bytes=room,
                veil=Veil(mask.key, partial(strip, mask)) if mask.key else None, ahead=True,
            )  # fmt: skip
            room -= sum(len(frame) for frame in batch.frames)
            found.append(say.Delivery(pull.stream, batch.frames, batch.upto, batch.more))
            if batch.more and grant.name == SCHEMA:
                # Entries are read with the schema they were written under, so it goes first.
                break
        return await self._attest(found)

    async def _attest(self, found: list[say.Delivery]) -> list[say.Delivery]:
        """Sign for how far each goes, so that the site can prove it has had it."""
        if self._signer is None:
            return found
        upto = {delivery.stream: delivery.upto for delivery in found}
        words = await attest(self._db, self._signer, self._tenant, upto)
        return [msgspec.structs.replace(d, attested=words.get(d.stream, b"")) for d in found]

    def keep_behind_schema(self, found: list[say.Delivery], heads: Heads) -> list[say.Delivery]:
        """Hold back what may have been written under a schema newer than the one that is sent."""
        schema = next((g.stream for g in self._grants.values() if g.name == SCHEMA), None)
        if schema is None or schema not in heads or schema not in self._heads:
            return found
        if heads[schema].head == self._heads[schema].head:
            return found
        return [delivery for delivery in found if delivery.stream == schema]
