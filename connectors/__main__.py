"""`python -m connectors`: make a connector, check it, run it on a file, compare its golden rows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from connectors.sdk.commands.check import check
from connectors.sdk.commands.golden import golden
from connectors.sdk.commands.new import LIKES, new
from connectors.sdk.commands.quality import quality
from connectors.sdk.commands.run import run
from connectors.sdk.manifest import list_systems


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
        case "run":
            return run(given.key, given.file, dict(given.constants), print)
        case _:
            return quality(given.folder, given.connector, print)


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
    one = commands.add_parser("quality", help="every file of a folder")
    one.add_argument("folder", type=Path)
    one.add_argument("--connector", default="", help="this one for all, whatever is recognised")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"expected name=value, not {text}")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
