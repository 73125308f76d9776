"""Copies out of the plane and back into it, and what stays of a tenant that was erased: nothing."""

from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest

from appliance.base.clock import now
from appliance.base.errors import Refused, Unavailable
from appliance.base.ids import uuid7
from quarantine import ledger
from quarantine.contract import COPY_HEADER, ORDER_HEADER, ORDER_S, Action, Erased, Order
from quarantine.settings import Settings
from quarantine.store.faults import Changed, KeyFault
from quarantine.vault import Vault
from tests.http.conftest import valkey_url
from tests.quarantine.planes import job, pieces, plane

__all__ = ["valkey_url"]
pytestmark = pytest.mark.anyio
BODY = b"0123456789abcdef" * 150_000


@pytest.fixture
async def vault(tmp_path):
    found = Vault(Settings(data=str(tmp_path), key_file="", redis_url=""))
    await found.start(recover=True)
    yield found
    found.close()


def later(given, seconds):
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return msgspec.structs.replace(given, blob=uuid7(), issued_at=at)


async def test_an_erased_key_is_in_no_file_of_the_ledger(vault, tmp_path):
    given = job()
    await vault.receive(given, pieces(BODY))
    text = "SELECT wrapped FROM tenant WHERE id = ?"
    (wrapped,) = await vault.ledger.run(lambda db: db.execute(text, (given.tenant.hex,)).fetchone())
    files = [p for p in tmp_path.iterdir() if p.name.startswith("ledger.")]
    assert any(wrapped in p.read_bytes() for p in files)
    assert await vault.erase(given.tenant) == Erased(1, len(BODY))
    assert not any(wrapped in p.read_bytes() for p in files)


async def test_an_erased_tenant_is_taken_in_again_when_nothing_old_can_be_under_way(vault):
    given = job()
    await vault.receive(given, pieces(BODY))
    await vault.erase(given.tenant)
    for seconds in (0, ORDER_S - 5):
        with pytest.raises(KeyFault):
            await vault.receive(later(given, seconds), pieces(BODY))
    new = later(given, ORDER_S + 5)
    await vault.receive(new, pieces(BODY))
    blob = await vault.ledger.run(lambda db: ledger.find_blob(db, new.blob))
    assert await (await vault.open(blob)).read() == BODY
    # What went before is told once: this is another erasure.
    await vault.purge(new.blob)
    assert await vault.erase(given.tenant) == Erased(0, 0)


async def test_bytes_that_were_under_way_when_a_tenant_was_erased_are_not_kept(vault, tmp_path):
    given = job()

    async def slow():
        yield BODY
        await vault.erase(given.tenant)
        yield b"the rest"

    for take in (vault.receive, vault.restore):
        fresh = later(given, ORDER_S + 5)
        with pytest.raises(KeyFault):
            await take(fresh, slow())
        assert await vault.ledger.run(lambda db, f=fresh: ledger.find_blob(db, f.blob)) is None
    assert not list((tmp_path / "incoming").iterdir())


async def test_words_on_an_erased_tenant_are_told_to_nobody(vault):
    one, other = job(), job()
    for given in (one, other):
        await vault.receive(given, pieces(BODY))
        blob = await vault.ledger.run(lambda db, g=given: ledger.find_blob(db, g.blob))
        judged = ledger.Judged(
            blob.id, blob.tenant, ledger.unscannable(blob, "It cannot be read."), datetime.now(UTC)
        )
        await vault.ledger.run(lambda db, j=judged: ledger.tell(db, j))
    await vault.erase(one.tenant)
    left = await vault.ledger.run(lambda db: ledger.take_notices(db, 0))
    assert [n.what.tenant for n in left] == [other.tenant]


async def test_other_bytes_under_a_known_id_are_refused_and_nothing_of_them_stays(vault, tmp_path):
    given = job()
    await vault.receive(given, pieces(BODY))
    with pytest.raises(Changed):
        await vault.restore(given, pieces(BODY + b"!"))
    with pytest.raises(Changed):
        await vault.restore(msgspec.structs.replace(given, tenant=uuid7()), pieces(BODY))
    same = await vault.restore(given, pieces(BODY))
    assert not same.fresh and not list((tmp_path / "incoming").iterdir())


async def test_copies_are_for_the_node_and_never_of_what_was_rejected(valkey_url):
    async with plane(valkey_url, start=("serve",)) as bench:
        blob = await bench.bring(BODY, name="лист.txt", extensions=("txt", "тхт"))
        async with bench.client.copy(bench.tenant, blob) as (told, parts):
            assert b"".join([p async for p in parts]) == BODY
        assert (told.name, told.policy.extensions) == ("лист.txt", ("txt", "тхт"))
        for tenant, ident in ((uuid7(), blob), (bench.tenant, uuid7())):
            with pytest.raises(Refused):
                async with bench.client.copy(tenant, ident):
                    pass
        async with httpx.AsyncClient(base_url=bench.processes.url, trust_env=False) as stranger:
            assert (await stranger.get("/copies")).status_code == 404
            assert (await stranger.put("/copies", content=b"x")).status_code == 404
            # An order for something else opens nothing either.
            order = Order(Action.LOOK, now(), blob, bench.tenant)
            headers = {ORDER_HEADER: bench.client.signer.seal(order)}
            answer = await stranger.get("/copies", headers=headers)
            assert answer.status_code == 404 and COPY_HEADER not in answer.headers
        bench.ledger("UPDATE blob SET verdict = 'rejected' WHERE id = ?", blob.hex)
        with pytest.raises(Refused) as refused:
            async with bench.client.copy(bench.tenant, blob):
                pass
        assert refused.value.code == "file.rejected"


async def test_another_node_gets_a_stretch_of_a_blob_and_never_of_a_rejected_one(valkey_url):
    async with plane(valkey_url, start=("serve",)) as bench:
        blob, cut = await bench.bring(BODY), bench.client.cut
        for start, length in ((0, 10), (1_048_570, 20), (len(BODY) - 5, 100), (7, 0)):
            found = await cut(bench.tenant, blob, start, length)
            assert found == BODY[start : start + length]
        assert await cut(bench.tenant, blob, len(BODY) + 1, 5) == b""
        for tenant, ident in ((uuid7(), blob), (bench.tenant, uuid7())):
            with pytest.raises(Refused):
                await cut(tenant, ident, 0, 10)
        for start, length in ((-1, 5), (5, -1)):
            with pytest.raises(Unavailable):
                await cut(bench.tenant, blob, start, length)
        bench.ledger("UPDATE blob SET verdict = 'rejected' WHERE id = ?", blob.hex)
        with pytest.raises(Refused) as refused:
            await cut(bench.tenant, blob, 0, 10)
        assert refused.value.code == "file.rejected"
