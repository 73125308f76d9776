"""An API process for the tests that kill one: `python -m tests.http.child CONTROL POOL REDIS PLANE KEY PORT`."""

import asyncio
import subprocess
import sys
import time
import urllib.error
import urllib.request

import uvicorn

from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.http.app import create_app
from tests.http.conftest import make_node
from tests.plane import ROOT
from tests.ports import free_port


class Api:
    """Starts one, kills it, starts it again on the same port."""

    def __init__(self, dsns, redis_url, plane, log):
        self.port, self.log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = [dsns.control_dsn, dsns.pool_dsn, redis_url, plane.url, plane.key.hex()]
        self.child = None

    def start(self):
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "tests.http.child", *self.arguments, str(self.port)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health/live", timeout=1)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                assert time.monotonic() < end and self.child.poll() is None, self.log.read_text()
                time.sleep(0.05)

    def kill(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None


async def main(control, pool, redis_url, plane, key, port):
    db = Database(control, pool)
    await db.start()
    content = ContentPlane(plane, plane, bytes.fromhex(key))
    app = create_app(make_node(db, redis_url, content=content))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", log_config=None
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
