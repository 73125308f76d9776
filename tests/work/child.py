"""A worker process for the tests that kill one: `python -m tests.work.child CONTROL POOL REDIS`."""

import asyncio
import sys

from appliance.base import logs
from appliance.db.database import Database
from appliance.work.main import run_worker
from appliance.work.node import WorkNode
from appliance.work.registry import JOBS, JobSort
from tests.work.test_relay import count_slowly


async def main(control, pool, url):
    logs.configure()
    JOBS["count_slowly"] = JobSort(kind="count_slowly", queue="upkeep", handler=count_slowly)

    async def seal(db, tenant):
        return 0

    db = Database(control, pool)
    await db.start()
    try:
        await run_worker(WorkNode(db=db, redis_url=url, name="child", origin=1, seal=seal))
    finally:
        await db.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
