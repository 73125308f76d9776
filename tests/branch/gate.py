"""`python -m tests.branch.gate FROM:PORT TO:PORT`: what stands before a node and ends TLS there.

A node takes credentials from its own machine and over HTTPS only. Here it is without the TLS: in
the hub's namespace it takes connections of the long-distance network and makes them local ones.
"""

import asyncio
import contextlib
import sys


async def bring(source, target):
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while piece := await source.read(65_536):
            target.write(piece)
            await target.drain()
    with contextlib.suppress(OSError, RuntimeError):
        target.write_eof()


async def main(here, there):
    async def take(near_in, near_out):
        try:
            far_in, far_out = await asyncio.open_connection(*there)
        except OSError:
            near_out.transport.abort()
            return
        try:
            await asyncio.gather(bring(near_in, far_out), bring(far_in, near_out))
        finally:
            near_out.transport.abort()
            far_out.transport.abort()

    server = await asyncio.start_server(take, *here)
    print("up", flush=True)
    await server.serve_forever()


def place(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*map(place, sys.argv[1:3])))
