"""Where a source's files are, as its settings say it, and the open way there."""

from __future__ import annotations

from pathlib import Path

import msgspec

from connectors.markets.open import MarketPlace, open_pages
from connectors.onec.place import OneCPlace
from connectors.onec.place import open_place as open_onec
from connectors.transports.capture import Capture
from connectors.transports.contract import Transport
from connectors.transports.folder import Folder
from connectors.transports.ftp import Ftp, FtpPlace
from connectors.transports.mailbox import Mailbox, MailPlace
from connectors.transports.pull import Pull, PullPlace
from connectors.transports.sftp import Sftp, SftpPlace


class FolderPlace(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="folder", kw_only=True
):
    """A folder here. `may_move`: files that are done with go to `done` or `failed` beside."""

    folder: str
    may_move: bool = False


Place = FolderPlace | SftpPlace | FtpPlace | PullPlace | MailPlace | OneCPlace | MarketPlace


def open_place(place: Place, known: dict[str, str]) -> Transport:
    """Connect. `known`: what the transport remembers between looks, changed in place.

    Raises sdk.retry.Trouble or OSError.
    """
    match place:
        case FolderPlace():
            return Folder(Path(place.folder), may_move=place.may_move)
        case SftpPlace():
            return Sftp(place)
        case FtpPlace():
            return Ftp(place)
        case PullPlace():
            return Pull(place, known)
        case MailPlace():
            return Mailbox(place, known)
        case OneCPlace():
            return open_onec(place, known)
        case _:
            return Capture(open_pages(place, known), known)
