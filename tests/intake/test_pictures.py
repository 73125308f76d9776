"""Pictures of a package: files that hang on products, known again, exchanged, dropped, refused."""

import io
import zipfile

import msgspec
import pytest

from appliance.base.ids import uuid7
from appliance.base.settings import Files
from appliance.exchange import pictures
from appliance.files.places import may_see
from appliance.files.rows import as_system, find_file, move
from appliance.files.states import FileState
from appliance.intake.files import locate
from appliance.work.run import JobCancelled
from tests.http.conftest import holding, valkey_url  # noqa: F401 - fixtures
from tests.intake.test_intake import desk, quiet  # noqa: F401 - the fixture
from tests.tenants import everything

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG\r\n\x1a\n"


def package(goods, brought, *, full=True, made="2026-11-20T10:00:00"):
    """`goods`: id to its pictures; `brought`: name to bytes."""
    listed = "".join(
        f"<Товар><Ид>{i}</Ид><Наименование>Болт {i}</Наименование>"
        + "".join(f"<Картинка>{n}</Картинка>" for n in names) + "</Товар>"
        for i, names in goods.items()
    )  # fmt: skip
    document = (
        f'<?xml version="1.0" encoding="UTF-8"?><КоммерческаяИнформация ВерсияСхемы="2.08" '
        f'ДатаФормирования="{made}"><Каталог СодержитТолькоИзменения="{str(not full).lower()}">'
        f"<Ид>k</Ид><Товары>{listed}</Товары></Каталог></КоммерческаяИнформация>"
    )
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, body in {"import.xml": document.encode(), **brought}.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 11, 20, 10, 0, 0)), body)
    return held.getvalue()


@pytest.fixture
async def shop(desk, holding):  # noqa: F811
    """Brings a package, applies it, and brings its pictures."""
    plane = holding.client()

    async def bring(goods, brought, report=quiet, **more):
        made = await desk.bring(
            package(goods, brought, **more), connector="commerceml", source="1C"
        )
        assert made.state == "planned", made.detail
        done = await desk.approve(made)
        path = locate(desk.folder, desk.firm.id, done.sha256)
        told = await pictures.bring_pictures(
            desk.db,
            desk.firm.id,
            done.id,
            path,
            plane=plane,
            limits=Files(),
            origin=1,
            report=report,
        )
        return done, (told.stored, told.known, told.refused, told.dropped)

    yield bring
    await plane.close()


async def hung(desk):  # noqa: F811
    """The files of each product: its name to (file name, state)."""
    rows = await desk.firm.sql(
        "SELECT p.data->>'name', f.data->>'name', f.data->>'state', f.id::text FROM record f "
        "JOIN record p ON p.id = (f.data->>'for_record')::uuid WHERE f.kind = 'sys.file' "
        "AND f.deleted_at IS NULL ORDER BY 1, f.id"
    )
    found = {}
    for product, *file in rows:
        found.setdefault(product[-1], []).append(tuple(file))
    return found


async def test_pictures_hang_on_products_and_are_known_again(shop, desk):  # noqa: F811
    goods = {"1": ["import_files/1a.png", "import_files/1b.png", "https://shop.example/x.png"],
             "2": ["import_files/2.png"], "3": ["import_files/none.png"]}  # fmt: skip
    brought = {f"import_files/{n}.png": PNG + n.encode() * 200_000 for n in ("1a", "1b", "2")}
    first, told = await shop(goods, brought)
    assert told == (3, 0, 0, 0)
    before = await hung(desk)
    assert [(p, [f[:2] for f in files]) for p, files in before.items()] == [
        ("1", [("1a.png", "held"), ("1b.png", "held")]), ("2", [("2.png", "held")]),
    ]  # fmt: skip
    links = await desk.firm.sql("SELECT data->>'image_links' FROM record WHERE kind = 'product' "
                                "AND data->>'image_links' IS NOT NULL")  # fmt: skip
    assert links == [["https://shop.example/x.png"]]
    file = await find_file(desk.db, desk.firm.id, before["1"][0][2])
    nobody = msgspec.structs.replace(everything(desk.ctx.schema), capabilities=frozenset())
    other = msgspec.structs.replace(await desk.firm.ctx(nobody), actor=uuid7())
    assert not await may_see(desk.db, other, file)
    await move(desk.db, as_system(desk.ctx), file, FileState.RELEASED, "file.released")
    assert await may_see(desk.db, other, await find_file(desk.db, desk.firm.id, file.id))
    again, told = await shop(goods, brought)
    assert told == (0, 3, 0, 0) and {p: len(f) for p, f in (await hung(desk)).items()} == {
        "1": 2, "2": 1,
    }  # fmt: skip
    # Other bytes under a name take its place; a name that changes alone leave out stays.
    less = {"1": ["import_files/1a.png"]}
    _, told = await shop(less, {"import_files/1a.png": PNG + b"new"}, full=False)
    assert told == (1, 0, 0, 0)
    assert [f[0] for f in (await hung(desk))["1"]] == ["1b.png", "1a.png"]
    second, told = await shop(goods | less, brought | {"import_files/1a.png": PNG + b"new"})
    assert told == (0, 2, 0, 1), "a full package drops 1b"
    assert [f[0] for f in (await hung(desk))["1"]] == ["1a.png"]
    refused = await find_file(desk.db, desk.firm.id, (await hung(desk))["2"][0][2])
    await move(
        desk.db,
        as_system(desk.ctx),
        refused,
        FileState.SUSPICIOUS,
        "file.suspicious",
        {"reason": "a script"},
    )
    await pictures.note_refused(
        desk.db, desk.firm.id, await find_file(desk.db, desk.firm.id, refused.id)
    )
    (row,) = await desk.rows(second, "faulty")
    assert (row.key, row.faults[0]["code"]) == ("2", "picture-refused")
    assert row.faults[0]["found"] == "import_files/2.png: suspicious: a script"
    _, told = await shop(goods | less, brought | {"import_files/1a.png": PNG + b"new"})
    assert told == (0, 2, 1, 0), "it is not stored again, and said again"
    back = await desk.revert(first)
    assert back.state == "reverted"
    assert await pictures.forget_pictures(desk.db, desk.ctx, first.id) == 1, (
        "the others went before"
    )
    assert [f[0] for f in (await hung(desk)).get("1", ())] == ["1a.png"]


async def test_pictures_are_stopped_and_go_on(shop, desk):  # noqa: F811
    goods = {str(n): [f"{n}.png", f"{n}.exe/"] for n in range(3)}
    brought = {f"{n}.png": PNG + str(n).encode() for n in range(3)}
    seen = []

    async def stop(done, total):
        seen.append((done, total))
        if len(seen) == 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        await shop(goods, brought, report=stop)
    assert seen == [(3, 3)] * 2
    run, told = await shop(goods, brought)
    assert told == (2, 1, 0, 0) and sum(map(len, (await hung(desk)).values())) == 3
    assert (await desk.look(run.id)).counts["pictures_known"] == 1
