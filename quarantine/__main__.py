"""`python -m quarantine serve` takes bytes and serves them; `python -m quarantine work` scans."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

from quarantine.settings import Misconfigured, Settings, load

_PR_SET_DUMPABLE = 4


def main() -> int:
    """The exit code: 2 for settings that cannot be."""
    if sys.argv[1:] not in (["serve"], ["work"]):
        print(
            "python -m quarantine serve|work; settings are QUARANTINE_… variables", file=sys.stderr
        )
        return 2
    try:
        settings = load()
    except Misconfigured as bad:
        print(str(bad), file=sys.stderr)
        return 2
    os.umask(0o077)
    # Keys are in memory: no core file, no reading by another process of the account.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if sys.argv[1] == "serve":
        _serve(settings)
    else:
        asyncio.run(_work(settings))
    return 0


def _serve(settings: Settings) -> None:
    import uvicorn

    from quarantine.http.app import create_app

    uvicorn.run(
        create_app(settings), host=settings.host, port=settings.port, loop="uvloop",
        http="httptools", access_log=False, log_config=None, timeout_graceful_shutdown=5,
        server_header=False,
    )  # fmt: skip


async def _work(settings: Settings) -> None:
    from quarantine.work import open_worker

    async with open_worker(settings) as worker:
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, worker.stopping.set)
        await worker.run()


if __name__ == "__main__":
    sys.exit(main())
