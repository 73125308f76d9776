"""`python -m tests.bench [topic …]`: each figure with its floor, measured in the same run."""

import asyncio
import sys
from importlib import import_module

TOPICS = {
    "process": "in_process", "http": "over_http", "scale": "scale", "tenants": "many_tenants",
    "idle": "idle", "imports": "imports", "ledgers": "ledgers",
    "large_csv": "large_csv", "exports": "exports", "scanner": "scanner",
    "blobs": "blobs", "checks": "quarantine_pipeline", "files": "files", "live": "live",
    "wire": "wire", "sync": "replication", "statements": "statements", "matching": "matching",
    "commerceml": "commerceml", "channels": "channels", "exchange": "exchange",
}  # fmt: skip

if __name__ == "__main__":
    for topic in sys.argv[1:] or TOPICS:
        print(f"— {topic}", flush=True)
        asyncio.run(import_module(f"tests.bench.{TOPICS[topic]}").main())
