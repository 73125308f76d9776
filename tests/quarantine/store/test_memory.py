"""Memory is flat in the size of a file, on the way into a bucket and out of it."""

from quarantine.store.blobs import Blobs
from quarantine.store.contents import join
from tests.quarantine.store.conftest import TENANT
from appliance.base.ids import uuid7

MEBI = 1024 * 1024
SIZE = 100 * MEBI


async def zeros(size):
    for _ in range(size // 65_536):
        yield bytes(65_536)


def kilobytes(name):
    with open("/proc/self/status") as file:
        return int(file.read().split(f"{name}:")[1].split()[0])


def forget_the_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def test_100_mb_cost_less_than_20_mb_of_memory(place, incoming, tenant_key, run):
    async def store(blobs, size):
        received = await incoming.receive(uuid7(), tenant_key, zeros(size), limit=SIZE)
        assert received.size == size and received.tenant == TENANT
        content = join(None, received).content
        await blobs.settle(content)
        async for _ in (await blobs.open(content, tenant_key)).pieces():
            pass

    async def go():
        blobs = Blobs(place, incoming)
        await store(blobs, 40 * MEBI)  # what the client and the allocator keep for good
        forget_the_peak()
        before = kilobytes("VmRSS")
        await store(blobs, SIZE)
        assert kilobytes("VmHWM") - before < 20 * 1024, kilobytes("VmHWM") - before

    run(go())
