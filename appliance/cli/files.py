"""`nexus file …`: bring files, fetch them, see how they stand, review them, in a person's name.

Whoever may use this machine's command line acts as the person named by --as, with that person's
rights and no more; the audit names that person. What the commands say about states is what the
API says; nothing here opens another way to a file's bytes.

Exit codes: 0 released, or done; 1 refused; 3 held; 4 suspicious; 5 rejected; 6 recalled; 7 expired
or purged. Of several files the worst counts: 1, 5, 6, 7, 4, 3, 0.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from appliance.base.errors import ApplianceError, Forbidden, Invalid, Refused
from appliance.base.ids import parse_uuid
from appliance.cli.acting import As, At, Call, run
from appliance.cli.fetching import fetch
from appliance.cli.sending import IN_PARTS_FROM, send_in_parts
from appliance.files import parts, upload
from appliance.files.places import REVIEW, Place, may_see
from appliance.files.review import RESCAN, review
from appliance.files.rows import File, files_in, files_of, find_file
from appliance.files.states import RESTING, FileState

USE = "files.use"
_PIECE = 1 << 20
_LOOK_S = 0.1
_LIST_MAX = 200
_S = FileState
CODES = {
    _S.RELEASED: 0, _S.RESTRICTED: 0, _S.HELD: 3, _S.RECEIVING: 3, _S.SUSPICIOUS: 4,
    _S.REJECTED: 5, _S.RECALLED: 6, _S.EXPIRED: 7, _S.PURGED: 7,
}  # fmt: skip
_WORST = (1, 5, 6, 7, 4, 3, 0)
For = Annotated[str | None, Parameter(name="--for")]


def put(
    *paths: Path,
    tenant: str | None = None,
    by: As = None,
    place: For = None,
    wait: bool = False,
    seconds: float = 60.0,
    data: str | None = None,
    port: int | None = None,
) -> int:
    """Bring files in; each is held until it is proved clean.

    Parameters
    ----------
    paths: the files.
    tenant: the tenant's short name; may be left out where there is one tenant.
    by: the address of the person in whose name; may be left out where only one signs in.
    place: the record they hang on, and its field for a file: deal/0199…  or deal/0199….contract
    wait: say how they move on, until they rest; the exit code is then the worst state.
    seconds: how long to wait for each.
    data: the data folder (NEXUS_DATA).
    port: where the node listens, if nexus.toml does not say it (NEXUS_PORT).
    """
    if not paths:
        raise Invalid("Name the files to bring in.")
    where = read_place(place)

    async def work(at: At) -> int:
        codes, brought = [], []
        with upload_bar() as progress:
            for path in paths:
                try:
                    brought.append(await bring(at, path, where, progress))
                except ApplianceError as refused:
                    print(f"nexus: {path}: {refused.detail}", file=sys.stderr)
                    for fault in refused.faults:
                        print(f"  {fault.pointer}: {fault.detail}", file=sys.stderr)
                    codes.append(1)
        for file in brought:
            if wait:
                codes.append(CODES[(await follow(at, file, seconds)).state])
            else:
                _say(await explain(at, file))
        return worst(codes)

    return run(Call(tenant, by, USE, data, port, needs_plane=True), work)


def get(
    ident: str,
    *,
    out: Path | None = None,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
    port: int | None = None,
) -> int:
    """Fetch a released file; it is under its name when all of it is there, and in the audit.

    Parameters
    ----------
    ident: the file's id.
    out: the file to write, or a folder; default: the file's own name, here.
    tenant: the tenant's short name.
    by: the address of the person in whose name.
    data: the data folder (NEXUS_DATA).
    port: where the node listens (NEXUS_PORT).
    """

    async def work(at: At) -> int:
        file = await see(at, ident)
        if CODES[file.state]:
            _say(await explain(at, file), sys.stderr)
            return CODES[file.state]
        with upload_bar() as progress:
            task = progress.add_task(file.name, total=file.size)
            target = await fetch(
                at.node.db, at.ctx, at.plane, file, out,
                report=lambda n: progress.update(task, advance=n),
            )  # fmt: skip
        print(f"{file.id}  {file.size} bytes  {target}")
        return 0

    return run(Call(tenant, by, USE, data, port, needs_plane=True), work)


def show(
    ident: str,
    *,
    json: bool = False,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
    port: int | None = None,
) -> int:
    """How a file stands and why; the exit code is its state. What engines said: for reviewers.

    Parameters
    ----------
    ident: the file's id.
    json: as JSON.
    tenant: the tenant's short name.
    by: the address of the person in whose name.
    data: the data folder (NEXUS_DATA).
    port: where the node listens (NEXUS_PORT).
    """

    async def work(at: At) -> int:
        file = await explain(at, await see(at, ident))
        if not at.ctx.profile.may(REVIEW):
            file = msgspec.structs.replace(file, verdict={}, review={})
        if json:
            print(msgspec.json.encode(file).decode())
        else:
            _print_whole(file)
        return CODES[file.state]

    return run(Call(tenant, by, USE, data, port), work)


def list_(
    *,
    state: str | None = None,
    record: str | None = None,
    json: bool = False,
    tenant: str | None = None,
    by: As = None,
    data: str | None = None,
    port: int | None = None,
) -> int:
    """The newest files of a record, or (for reviewers) in a state; at most 200.

    Parameters
    ----------
    state: receiving, held, suspicious, released, restricted, rejected, recalled, expired, purged.
    record: the id of a record.
    json: one JSON object a line.
    tenant: the tenant's short name.
    by: the address of the person in whose name.
    data: the data folder (NEXUS_DATA).
    port: where the node listens (NEXUS_PORT).
    """
    if (state is None) == (record is None):
        raise Invalid("Say either --state or --record.")

    async def work(at: At) -> int:
        for file in await find_files(at, state, record):
            if json:
                found = msgspec.structs.replace(file, verdict={}, review={})
                print(msgspec.json.encode(found).decode())
            else:
                _say(file)
        return 0

    return run(Call(tenant, by, REVIEW if state else USE, data, port), work)


def review_(
    ident: str,
    decision: Literal["release", "reject", "recall", "rescan"],
    *,
    by: As = None,
    reason: str = "",
    tenant: str | None = None,
    data: str | None = None,
    port: int | None = None,
) -> int:
    """A reviewer's word on a file: two reviewers release, one rejects or recalls.

    Parameters
    ----------
    ident: the file's id.
    decision: release, reject, recall or rescan.
    by: the address of the reviewer.
    reason: why, in 8 to 500 characters; it is kept. A rescan needs none.
    tenant: the tenant's short name.
    data: the data folder (NEXUS_DATA).
    port: where the node listens (NEXUS_PORT).
    """
    if by is None:
        raise Invalid("Say who reviews: --as EMAIL.")

    async def work(at: At) -> int:
        file = await see(at, ident)
        after = await review(at.node.db, at.ctx, at.plane, file, decision, reason)
        _say(after)
        if after.state is file.state and decision == "release":
            print("Another reviewer has to agree.")
        return 0

    call = Call(tenant, by, REVIEW, data, port, needs_plane=decision == RESCAN)
    return run(call, work)


def read_place(text: str | None) -> Place:
    """`KIND/ID` or `KIND/ID.FIELD`. Raises Invalid."""
    if text is None:
        return Place()
    kind, _, rest = text.partition("/")
    ident, _, field = rest.partition(".")
    record = parse_uuid(ident)
    if not kind or record is None:
        raise Invalid(f"--for {text}: expected KIND/ID or KIND/ID.FIELD, with the record's id.")
    return Place(kind, record, field)


def worst(codes: list[int]) -> int:
    """The exit code of several files."""
    return next((c for c in _WORST if c in codes), 0)


async def bring(at: At, path: Path, place: Place, progress: Progress) -> File:
    """One file into the plane. Raises Invalid, and what the upload raises."""
    try:
        size = path.stat().st_size
        source = path.open("rb")
    except OSError as bad:
        raise Invalid(f"It cannot be read: {bad.strerror}.") from None
    with source:
        task = progress.add_task(path.name, total=size)
        if size > IN_PARTS_FROM:
            return await send_in_parts(
                parts.Door(at.node.db, at.ctx, at.node.settings.files, at.plane), path.name, place,
                source, lambda offset: progress.update(task, completed=offset),
            )  # fmt: skip
        limits = at.node.settings.files
        file, job = await upload.begin(at.node.db, at.ctx, limits, name=path.name, place=place)

        async def pieces() -> AsyncIterator[bytes]:
            while piece := await asyncio.to_thread(source.read, _PIECE):
                yield piece
                progress.update(task, advance=len(piece))

        return await upload.receive(at.node.db, at.ctx, at.plane, file, job, pieces())


async def see(at: At, text: str) -> File:
    """A file that exists for the person. Raises Refused."""
    ident = parse_uuid(text)
    file = await find_file(at.node.db, at.ctx.tenant, ident) if ident else None
    if file is None or not await may_see(at.node.db, at.ctx, file):
        raise Refused("There is no such file for you.", code="file.unknown")
    return file


async def find_files(at: At, state: str | None, record: str | None) -> list[File]:
    """Newest first, what the person may see. Raises Invalid, Forbidden."""
    if record is not None:
        ident = parse_uuid(record)
        if ident is None:
            raise Invalid("--record: expected the id of a record.")
        found = await files_of(at.node.db, at.ctx.tenant, ident, _LIST_MAX)
        return [f for f in found if await may_see(at.node.db, at.ctx, f)]
    if state is None or state not in FileState.__members__.values():
        raise Invalid(f"--state: expected one of {', '.join(FileState)}.")
    if not at.ctx.profile.may(REVIEW):
        raise Forbidden("Files by state are for reviewers.", code="access.denied")
    return await files_in(at.node.db, at.ctx.tenant, FileState(state), _LIST_MAX)


async def explain(at: At, file: File) -> File:
    """A file that waits says for what, in the plane's words of now."""
    if file.state is not FileState.HELD:
        return file
    try:
        look = await at.plane.look(at.ctx.tenant, file.id)
    except ApplianceError as error:
        return msgspec.structs.replace(file, reason=error.detail)
    said = "It is judged; the node's worker takes the verdict over." if look.verdict else look.why
    return msgspec.structs.replace(file, reason=said or file.reason)


async def follow(at: At, file: File, seconds: float) -> File:
    """Say each step until the file rests or the time is over; how it then stands."""
    end = asyncio.get_running_loop().time() + seconds
    said = ""
    while True:
        file = await explain(at, file)
        line = _line(file)
        if line != said:
            print(line, flush=True)
            said = line
        if file.state in RESTING or asyncio.get_running_loop().time() > end:
            return file
        await asyncio.sleep(_LOOK_S)
        file = await find_file(at.node.db, at.ctx.tenant, file.id) or file


def _line(file: File) -> str:
    reason = f"  ({file.reason})" if file.reason else ""
    return f"{file.id}  {file.state:10} {file.size:>12}  {file.name}{reason}"


def _say(file: File, to: object = None) -> None:
    print(_line(file), file=sys.stdout if to is None else sys.stderr)


def _print_whole(file: File) -> None:
    place = f"{file.for_kind}/{file.for_record}" if file.for_record else ""
    lines = [
        ("file", file.id), ("name", file.name), ("state", file.state), ("reason", file.reason),
        ("type", file.type), ("bytes", file.size), ("sha256", file.sha256),
        ("for", f"{place}.{file.for_field}" if file.for_field else place), ("owner", file.owner),
        ("brought", file.created_at.isoformat()), ("judged", file.judged_at),
    ]  # fmt: skip
    for name, tree in (("verdict", file.verdict), ("review", file.review)):
        lines += [
            (f"{name} {key}", text)
            for key, value in tree.items()
            for text in (map(_flat, value) if isinstance(value, list) else [_flat(value)])
        ]
    for label, value in lines:
        if value not in ("", None):
            print(f"{label:17} {value}")


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{v}" for v in value.values() if v)
    return str(value)


def upload_bar() -> Progress:
    """Bytes and speed on a terminal; nothing elsewhere."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )  # fmt: skip
