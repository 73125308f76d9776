"""ClamAV's signatures fetched by the node itself, where its operator wants that.

On a server Debian's own service fetches them into /var/lib/clamav, and the node only reads them. A
node without that service may run the same program over a folder of its own: once a day, as an
account that owns that folder alone. Without a network it logs so, and tries again the next day.
"""

from __future__ import annotations

from pathlib import Path

from appliance.runtime.account import Account, helper_account, make_folder, write_private
from appliance.runtime.supervisor import Unit

ACCOUNT = "nexus-fresh"
CHECKS_A_DAY = 1
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"}


class Freshclam:
    """One fetcher in `<data>/freshclam`; what it fetched is in `database`."""

    def __init__(self, program: Path, data: Path, account: Account) -> None:
        self.program = program
        self.account = helper_account(account, ACCOUNT)
        self.database = data.absolute() / "freshclam"

    def prepare(self) -> None:
        """Write the configuration. The program tests what it fetched before it puts it in place."""
        make_folder(self.account, self.database, 0o755)
        text = (
            f"DatabaseDirectory {self.database}\nDatabaseOwner {self.account.name}\n"
            "DatabaseMirror database.clamav.net\n"
            f"Foreground yes\nLogTime yes\nChecks {CHECKS_A_DAY}\n"
            "ConnectTimeout 30\nReceiveTimeout 600\nTestDatabases yes\nBytecode no\n"
        )
        write_private(self.account, self.database / "freshclam.conf", text)

    def unit(self) -> Unit:
        """The fetcher as a unit; nothing waits for it."""
        command = [str(self.program), "--daemon", "--foreground"]
        command.append(f"--config-file={self.database / 'freshclam.conf'}")
        return Unit("freshclam", command, self.account, _at_once, _ENVIRONMENT, wait=False)


async def _at_once() -> None:
    """There is nothing to ask it: it fetches when it can."""
