"""Attachments of a mailbox over IMAP: by UID under its UIDVALIDITY, of allowed senders only.

Nothing is deleted. What a message says of its sender can be forged: the verdict of the receiving
server on its signature (DKIM) travels with the file.
"""

from __future__ import annotations

import contextlib
import email
import imaplib
import re
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr
from pathlib import Path

import msgspec

from connectors.sdk.retry import Trouble, as_trouble
from connectors.transports.contract import CHUNK, WAIT_S, Entry, Listing, is_safe_name

MESSAGE_MAX = 64 << 20
MESSAGES_AT_ONCE = 50
_NUMBER = re.compile(rb"\bRFC822\.SIZE (\d{1,12})\b")
_DKIM = re.compile(r"\bdkim=(\w{1,20})", re.IGNORECASE)


class MailPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="imap", kw_only=True):
    """Where and as whom. `senders`: addresses or `@domain`s whose attachments are taken."""

    host: str
    user: str
    password_file: str
    senders: tuple[str, ...]
    port: int = 993
    mailbox: str = "INBOX"
    ca_file: str = ""


class Mailbox:
    """See contract.Transport. `known` is remembered between looks: how far the mailbox is read."""

    def __init__(self, place: MailPlace, known: dict[str, str]) -> None:
        self._place, self._known = place, known
        self._messages: dict[str, EmailMessage] = {}
        self._waiting: dict[int, set[str]] = {}
        self._skipped: list[str] = []
        self._imap: imaplib.IMAP4_SSL | None = None
        try:
            with self._told():
                self._sign_in()
        except BaseException:
            self.close()
            raise

    def entries(self) -> Listing:
        """Attachments of messages that came since; each is whole."""
        with self._told():
            found: list[Entry] = []
            for uid in self._new_uids()[:MESSAGES_AT_ONCE]:
                message = self._message(uid)
                if message is not None and self._is_allowed(message):
                    found += self._attachments(uid, message)
                self._waiting[uid] = {e.stamp for e in found if e.stamp.split(".")[1] == str(uid)}
            self._go_on()
            return Listing(tuple(found), tuple(self._skipped))

    def look(self, entry: Entry) -> Entry | None:
        """A message never changes."""
        return entry

    @contextlib.contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """See contract.Transport."""
        _, uid, number = entry.stamp.split(".")
        with self._told():
            message = self._messages.get(uid) or self._message(int(uid))
            if message is None:
                raise Trouble("file-vanished", f"the message of {entry.name} is not there any more")
            parts = list(message.iter_attachments())
            content = parts[int(number)].get_payload(decode=True)
            data = content if isinstance(content, bytes) else b""
            yield (data[n : n + CHUNK] for n in range(0, len(data), CHUNK))

    def put(self, name: str, content: bytes) -> None:
        """Nothing is put into a mailbox."""
        raise Trouble("read-only", "this source is only read", is_permanent=True)

    def finish(self, entry: Entry, *, is_failed: bool) -> None:
        """Only now is it not asked for again: whoever took it may have died before."""
        self._waiting.get(int(entry.stamp.split(".")[1]), set()).discard(entry.stamp)
        self._go_on()

    def close(self) -> None:
        """See contract.Transport."""
        if self._imap is not None:
            with contextlib.suppress(Exception):
                self._imap.shutdown()

    def _sign_in(self) -> None:
        place = self._place
        context = ssl.create_default_context(cafile=place.ca_file or None)
        self._imap = imaplib.IMAP4_SSL(place.host, place.port, ssl_context=context, timeout=WAIT_S)
        password = Path(place.password_file).read_text("utf-8").rstrip("\r\n")
        try:
            self._imap.login(place.user, password)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error:
            text = f"{place.host} refuses {place.user}"
            raise Trouble("sign-in-refused", text, is_permanent=True) from None
        quoted = '"' + place.mailbox.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if self._imap.select(quoted, readonly=True)[0] != "OK":
            text = f"there is no mailbox {place.mailbox}"
            raise Trouble("mailbox-missing", text, is_permanent=True)
        told = self._imap.response("UIDVALIDITY")[1]
        validity = told[0].decode() if told and isinstance(told[0], bytes) else "0"
        if self._known.get("validity") != validity:
            # The numbers of the mailbox were given anew: what was taken is known by its hash.
            self._known.update({"validity": validity, "uid": "0"})

    def _go_on(self) -> None:
        """The mailbox is read up to the first message of which something is still to be taken."""
        for uid in sorted(self._waiting):
            if self._waiting[uid]:
                return
            self._known["uid"] = str(uid)

    def _new_uids(self) -> list[int]:
        assert self._imap is not None, "signed in"
        last = int(self._known.get("uid", "0"))
        kind, data = self._imap.uid("SEARCH", f"UID {last + 1}:*")
        if kind != "OK":
            raise Trouble("refused", "the server does not search the mailbox")
        # `n:*` names the last message even when it is older.
        return sorted(u for u in map(int, (data[0] or b"").split()) if u > last)

    def _message(self, uid: int) -> EmailMessage | None:
        assert self._imap is not None, "signed in"
        _, told = self._imap.uid("FETCH", str(uid), "(RFC822.SIZE)")
        size = _NUMBER.search(told[0]) if told and isinstance(told[0], bytes) else None
        if size is None:
            return None
        if int(size.group(1)) > MESSAGE_MAX:
            self._skipped.append(f"message {uid}: more than {MESSAGE_MAX} bytes")
            return None
        _, data = self._imap.uid("FETCH", str(uid), "(BODY.PEEK[])")
        raw = next((d[1] for d in data or () if isinstance(d, tuple)), None)
        if raw is None:
            return None
        message = email.message_from_bytes(raw, policy=default)
        assert isinstance(message, EmailMessage), "the policy makes them"
        self._messages = {str(uid): message}
        return message

    def _is_allowed(self, message: EmailMessage) -> bool:
        address = parseaddr(str(message.get("From", "")))[1].lower()
        domain = "@" + address.rpartition("@")[2]
        return bool(address) and bool({address, domain} & {s.lower() for s in self._place.senders})

    def _attachments(self, uid: int, message: EmailMessage) -> list[Entry]:
        verdict = _DKIM.search(str(message.get("Authentication-Results", "")))
        facts = {
            "from": parseaddr(str(message.get("From", "")))[1][:200],
            "dkim": verdict.group(1).lower() if verdict else "not-checked",
        }
        found = []
        for number, part in enumerate(message.iter_attachments()):
            name = (part.get_filename() or "").rpartition("/")[2].rpartition("\\")[2]
            stamp = f"{self._known['validity']}.{uid}.{number}"
            shown = name if is_safe_name(name) else "attachment"
            found.append(Entry(f"{uid}-{number}-{shown}", -1, stamp, is_settled=True, facts=facts))
        return found

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        host = self._place.host
        try:
            yield
        except imaplib.IMAP4.error as error:
            raise Trouble("connection-failed", f"{host}: {str(error)[:200]}") from None
        except OSError as error:
            raise as_trouble(error) from None
