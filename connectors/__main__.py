"""`python -m connectors`: make a connector, check it, run it on a file, compare its golden rows."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from connectors.sdk.commands.check import check
from connectors.sdk.commands.golden import golden
from connectors.sdk.commands.new import LIKES, new
from connectors.sdk.commands.quality import quality
from connectors.sdk.commands.run import run
from connectors.sdk.manifest import list_systems
from connectors.sdk.retry import Trouble
from connectors.sdk.wire import Name
from connectors.work.main import work
from connectors.work.orders import write_always
from connectors.work.settings import (
    Misconfigured,
    Worker,
    check_node,
    read_key,
    read_sources,
    read_work,
)


def main() -> int:
    """Do what the command line says; its exit code."""
    given = _parser().parse_args()
    match given.command:
        case "new":
            return new(given.key, given.like, print)
        case "check":
            return max(check(key, print) for key in given.key or list_systems())
        case "golden":
            return golden(given.key, print, keep=given.keep)
        case "work":
            return _work(given)
        case "orders":
            return _orders(given)
        case "run":
            return run(given.key, given.file, dict(given.constants), print)
        case _:
            return quality(given.folders, given.connector, print)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m connectors", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("new", help="make a system folder that runs")
    one.add_argument("key")
    one.add_argument("--like", choices=LIKES, required=True)
    one = commands.add_parser("check", help="manifest, vocabulary, golden rows, hostile inputs")
    one.add_argument("key", nargs="*")
    one = commands.add_parser("golden", help="compare golden rows, or keep them")
    one.add_argument("key")
    one.add_argument("--keep", action="store_true")
    one = commands.add_parser("run", help="what one file holds")
    one.add_argument("key")
    one.add_argument("file", type=Path)
    one.add_argument("--constants", type=_pair, nargs="*", default=[], metavar="K=V")
    one = commands.add_parser("orders", help="write a node's orders into a base of 1C")
    _add_node(one)
    one.add_argument("--sources", required=True, type=Path, help="as of work")
    one.add_argument("--source", required=True, metavar="KEY", help="the base")
    one = commands.add_parser("work", help="read runs of a node, look at sources, serve channels")
    _add_node(one)
    one.add_argument("--name", required=True, help="as the runs' option `worker` names it")
    one.add_argument(
        "--sources", type=Path, help="a TOML file with [[source]] and [[channel]] tables"
    )
    one.add_argument("--source", action="append", default=[], metavar="KEY", help="these alone")
    one.add_argument("--data", type=Path, default=Path("connector-data"))
    one = commands.add_parser("quality", help="a line for every file below folders")
    one.add_argument("folders", type=Path, nargs="+", metavar="folder")
    one.add_argument("--connector", default="", help="this one for all, whatever is recognised")
    return parser


def _add_node(one: argparse.ArgumentParser) -> None:
    one.add_argument("--node", required=True, metavar="URL")
    one.add_argument("--key-file", required=True, type=Path)
    one.add_argument("--ca-file", default="", help="who signs the node, if not the system's own")
    one.add_argument("--plain-http", action="store_true", help="in a network that is yours")
    one.add_argument("--once", action="store_true", help="do what waits, then end")


def _work(given: argparse.Namespace) -> int:
    try:
        sources, channels = read_work(given.sources, given.source) if given.sources else ((), ())
        worker = Worker(
            name=msgspec.convert(given.name, Name), key=read_key(given.key_file),
            node=check_node(given.node, is_plain_allowed=given.plain_http),
            data=given.data.absolute(), sources=sources,
            channels=channels, ca_file=given.ca_file,
        )  # fmt: skip
        asyncio.run(work(worker, is_once=given.once))
    except (Misconfigured, Trouble, msgspec.ValidationError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _orders(given: argparse.Namespace) -> int:
    try:
        (source,) = read_sources(given.sources, [given.source])
        worker = Worker(
            name="orders", key=read_key(given.key_file),
            node=check_node(given.node, is_plain_allowed=given.plain_http),
            data=Path(), sources=(source,), ca_file=given.ca_file,
        )  # fmt: skip
        failed = asyncio.run(write_always(worker, source, is_once=given.once))
    except (Misconfigured, Trouble) as error:
        print(error, file=sys.stderr)
        return 1
    return 2 if failed else 0


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"expected name=value, not {text}")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
