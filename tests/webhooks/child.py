"""A worker process for the test that kills one: `… CONTROL POOL REDIS DATA ALLOW`."""

import asyncio
import sys
from pathlib import Path

from appliance.base import logs
from appliance.base.settings import Webhooks
from appliance.db.database import Database
from appliance.work.main import run_worker
from appliance.work.node import WorkNode


async def main(control, pool, url, data, allow):
    logs.configure()

    async def seal(db, tenant):
        return 0

    db = Database(control, pool)
    await db.start()
    try:
        await run_worker(
            WorkNode(db=db, redis_url=url, name="child", origin=1, seal=seal, data_dir=Path(data),
                     webhooks=Webhooks(allow=allow))
        )  # fmt: skip
    finally:
        await db.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
