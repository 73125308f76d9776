"""Pictures of a package: each goes through quarantine as a file that hangs on its product.

A picture is known by its product and its name in the package; with the bytes that are here already
it is not stored again, with others it takes the place of the former one. One that is refused puts
its row at fault, not the product. What a package no longer names is taken away when it is a full
catalogue, and never otherwise. Addresses are links: nothing is fetched from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.access.acting import act_as
from appliance.base.errors import ApplianceError
from appliance.base.ids import parse_uuid, uuid7
from appliance.base.settings import Files as Limits
from appliance.content import ContentPlane
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Statement
from appliance.exchange.picture_rows import (
    Bearer,
    delete_files,
    files_of_records,
    mark_refused,
    note_files,
    read_bearers,
    read_brought,
)
from appliance.files import upload
from appliance.files.places import Place
from appliance.files.rows import KIND, File, find_file
from appliance.files.states import DOWNLOADABLE, RESTING
from appliance.intake import runs
from appliance.intake.ids import derived_id
from appliance.intake.refs import KIND as REF
from appliance.intake.refs import Refs
from appliance.intake.runs import IntakeRun
from appliance.intake.stage import Report
from appliance.intake.target import create
from appliance.intake.targets.goods.fields import KINDS
from appliance.kernel.context import Ctx, Door
from appliance.write import apply
from connectors.sdk import parent
from connectors.sdk.contract import Refused as Unread

_COUNT = Statement(
    "SELECT count(*), count(*) FILTER (WHERE data->>'images' IS NOT NULL) FROM intake_row "
    "WHERE tenant_id = $1 AND run = $2 AND entity IN ('product', 'variant') AND sort <> 'gone'"
)
_FULL = {"product": "catalogue_full", "variant": "offers_full"}


class Brought(msgspec.Struct, frozen=True):
    """What a run did with pictures."""

    stored: int = 0
    known: int = 0
    refused: int = 0
    dropped: int = 0

    def plus(self, **more: int) -> Brought:
        """With so many more of each."""
        return Brought(**{n: getattr(self, n) + more.get(n, 0) for n in self.__struct_fields__})


async def bring_pictures(
    db: Database, tenant: UUID, ident: UUID, path: Path | None, *, plane: ContentPlane,
    limits: Limits, origin: int, report: Report,
) -> Brought:  # fmt: skip
    """Bring the pictures of a run that is applied. Again is fine: what is here stays.

    `path`: the node's copy of the package. Raises Unavailable, and what `report` raises.
    """
    run = await runs.get_run(db, tenant, ident)
    if run.state != "applied" or path is None or not _is_package(path):
        return Brought()
    (rows,) = await db.read(tenant, (_COUNT, (tenant, ident)))
    bearers, with_images = (int(n or 0) for n in rows.first() or (b"0", b"0"))
    full = frozenset(e for e, fact in _FULL.items() if run.told.facts.get(fact) == "yes")
    if not with_images:
        return Brought()
    ctx = await act_as(
        db, tenant, run.created_by, run.profile, frozenset(run.units), origin=origin,
        door=Door.INTAKE,
    )  # fmt: skip
    async with parent.open_input(run.connector, path) as reading:
        work = _Work(db, ctx, run, reading, (plane, limits))
        done, last = Brought(), -1
        seen, total = 0, bearers if full else with_images
        while page := await read_bearers(db, tenant, ident, after=last, images_only=not full):
            last, seen = page[-1].no, seen + len(page)
            done = await work.bring(page, done, full, report=(report, seen, total))
            await report(seen, total)
    counts = {f"pictures_{n}": getattr(done, n) for n in Brought.__struct_fields__}
    async with db.transaction(tenant) as tx:
        await tx.run(runs.set_call(tenant, ident, "counts", {**run.counts, **counts}))
    return done


async def forget_pictures(db: Database, ctx: Ctx, run: UUID) -> int:
    """Take away the pictures that a run has brought; how many. Again is fine."""
    return await delete_files(db, ctx, await read_brought(db, ctx.tenant, run))


class _Work:
    """One run on its way."""

    def __init__(
        self, db: Database, ctx: Ctx, run: IntakeRun, reading: parent.Reading,
        store: tuple[ContentPlane, Limits],
    ) -> None:  # fmt: skip
        self._db, self._ctx, self._run, self._reading = db, ctx, run, reading
        self._plane, self._limits = store
        self._refs = Refs(db, ctx, run.source)

    async def bring(
        self, page: Sequence[Bearer], done: Brought, full: frozenset[str],
        *, report: tuple[Report, int, int],
    ) -> Brought:  # fmt: skip
        """The pictures of some rows."""
        tell, seen, total = report
        tenant = self._ctx.tenant
        wanted = {(KIND, f"{b.key}|{name}") for b in page for name in b.names}
        known = await self._refs.find(wanted)
        there = await files_of_records(self._db, tenant, [b.record for b in page])
        pictures: list[_Picture] = []
        try:
            for bearer in page:
                files = there.setdefault(bearer.record, [])
                for name in bearer.names:
                    means = {k.id for k in known.get((KIND, f"{bearer.key}|{name}"), ())}
                    now = next((f for f in files if f.id in means), None)
                    picture = await self._one(bearer, name, now, files)
                    done = done.plus(stored=picture.is_new, known=picture.is_known)
                    pictures.append(picture)
                    await tell(seen, total)
        finally:
            # Who stops it here keeps what came so far.
            await self._note(pictures)
        refused = await self._refuse(pictures)
        replaced = [p.former for p in pictures if p.former is not None]
        await delete_files(self._db, self._ctx, replaced)
        dropped = await self._drop([b for b in page if b.entity in full], there)
        return done.plus(refused=refused, dropped=dropped)

    async def _one(
        self, bearer: Bearer, name: str, now: File | None, files: list[File]
    ) -> _Picture:
        """One picture: the file that it is, or why it is none."""
        try:
            digest = await self._hash(name)
            same = next((f for f in (now, *files) if f is not None and f.sha256 == digest), None)
            if same is not None and (same is now or not self._is_own(same)):
                return _Picture(bearer, name, file=same.id, is_known=True)
            stored = same or await self._store(bearer, name)
        except Unread as unread:
            # Of one that is missing the reading has told; it may have come with another package.
            is_missing = unread.fault.code == "image-missing"
            return _Picture(bearer, name, refused="" if is_missing else unread.fault.code)
        except ApplianceError as error:
            if error.status >= 500:
                raise
            return _Picture(bearer, name, refused=error.detail)
        files.append(stored)
        former = now.id if now is not None else None
        return _Picture(bearer, name, file=stored.id, former=former, is_new=True)

    def _is_own(self, file: File) -> bool:
        """Whether it was stored by an earlier start of this run, which ended before it was noted."""
        return file.owner == self._ctx.actor and file.created_at >= self._run.created_at

    async def _hash(self, name: str) -> str:
        digest = hashlib.sha256()
        async for piece in self._reading.fetch(name):
            digest.update(piece)
        return digest.hexdigest()

    async def _store(self, bearer: Bearer, name: str) -> File:
        place = Place(KINDS[bearer.entity], bearer.record)
        last = name.rpartition("/")[2]
        file, job = await upload.begin(self._db, self._ctx, self._limits, name=last, place=place)
        return await upload.receive(
            self._db, self._ctx, self._plane, file, job, self._reading.fetch(name)
        )

    async def _note(self, pictures: Sequence[_Picture]) -> None:
        """Remember which files the names mean; the revert of the run takes that back."""
        tenant, run = self._ctx.tenant, self._run.id
        new = [p for p in pictures if p.is_new]
        if not new:
            return
        commands = [
            create(
                REF, derived_id(run, f"image:{p.id}:{p.file}"),
                self._refs.values(KIND, p.id, p.file or run),
            )
            for p in new
        ]  # fmt: skip
        step = msgspec.structs.replace(self._ctx, request_id=uuid7())
        result = await apply(self._db, step, commands, atomic=False)
        async with self._db.transaction(tenant) as tx:
            await tx.run(runs.applied_call(tenant, run, result.change_set), commit=True)
        await note_files(
            self._db, tenant, run, [(p.bearer.no, p.name, p.file) for p in new if p.file]
        )

    async def _refuse(self, pictures: Sequence[_Picture]) -> int:
        """Put rows at fault: a verdict that came before its picture was noted found no row."""
        tenant, run, count = self._ctx.tenant, self._run.id, 0
        for one in pictures:
            said = one.refused
            if one.file is not None:
                now = await find_file(self._db, tenant, one.file)
                if now is not None and now.state in RESTING and now.state not in DOWNLOADABLE:
                    said = f"{now.state}: {now.reason}"
            if said:
                await mark_refused(self._db, tenant, run, one.bearer.no, one.name, said)
                count += 1
        return count

    async def _drop(self, page: Sequence[Bearer], there: Mapping[UUID, list[File]]) -> int:
        """Take away what this source has brought before and names no longer."""
        files = [f.id for b in page for f in there.get(b.record, ())]
        brought = await self._refs.named(files)
        gone = []
        for bearer in page:
            said = {f"{bearer.key}|{name}" for name in bearer.names}
            for file in there.get(bearer.record, ()):
                names = {n for n in brought.get(file.id, ()) if n.startswith(f"{bearer.key}|")}
                if names and not names & said:
                    gone.append(file.id)
        return await delete_files(self._db, self._ctx, gone)


class _Picture(msgspec.Struct, frozen=True):
    """What became of one picture. `former`: the file whose place it takes."""

    bearer: Bearer
    name: str
    file: UUID | None = None
    former: UUID | None = None
    refused: str = ""
    is_new: bool = False
    is_known: bool = False

    @property
    def id(self) -> str:
        """What the source calls it."""
        return f"{self.bearer.key}|{self.name}"


async def note_refused(db: Database, tenant: UUID, file: File) -> None:
    """Put the row at fault that a picture came with, once it is known to be refused."""
    if file.for_kind not in (KINDS["product"], KINDS["variant"]) or file.state in DOWNLOADABLE:
        return
    (rows,) = await db.read(tenant, (_WHERE, (tenant, Column("text", [str(file.id)]))))
    for source, ext in rows:
        key, _, name = text_of(ext).partition("|")
        (found,) = await db.read(tenant, (_ROW, (tenant, text_of(source), key)))
        row = found.first()
        run = parse_uuid(text_of(row[0])) if row else None
        if row is not None and run is not None:
            said = f"{file.state}: {file.reason}"
            await mark_refused(db, tenant, run, int(row[1] or 0), name, said)


_WHERE = Statement(
    "SELECT data->>'system', data->>'external_id' FROM record WHERE tenant_id = $1 "
    "AND kind = 'external_ref' AND deleted_at IS NULL AND data->>'local_kind' = 'sys.file' "
    "AND data->>'record' = ANY($2::text[])"
)
_ROW = Statement(
    "SELECT r.run::text, r.no::text FROM intake_row r JOIN (SELECT id FROM intake_run "
    "WHERE tenant_id = $1 AND source = $2 AND state = 'applied' ORDER BY id DESC LIMIT 5) AS u "
    "ON u.id = r.run WHERE r.tenant_id = $1 AND r.key = $3 "
    "AND r.entity IN ('product', 'variant') AND r.sort <> 'gone' ORDER BY r.run DESC, r.no LIMIT 1"
)


def _is_package(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"
