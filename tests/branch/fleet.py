"""The hub and its two branches, joined over a link that fails; a tenant with people for both."""

import contextlib
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx

from appliance.write.log import common_stream
from tests.branch import spaces
from tests.branch.link import FAR, Wan
from tests.branch.nodes import BranchNode, wait_until
from tests.branch.proxy import Proxied
from tests.ports import free_port
from tests.system.conftest import API, Person

SLUG, OWNER = "branches", "owner@example.org"
PASSWORD = "nine quiet lanterns by the river"
HUB, SITES = "hub", ("north", "south")
UNITS = {"north": "North branch", "south": "South branch"}
FAIR = "Fair stand"
PREFIXES = {"north": "N", "south": "S"}
# As long as a busy machine may take.
JOIN_S = 240.0
OVER_TLS = {"X-Forwarded-Proto": "https"}


class Fleet:
    """Three nodes and what is between them. As a context it cleans up after itself."""

    def __init__(self, *, seed=1, disk_mb=None, sites=SITES):
        self.seed, self.sites = seed, sites
        self.home = Path(tempfile.mkdtemp(prefix="nexus-branch-"))
        self.home.chmod(0o755)
        self.why_no_spaces = spaces.why_not()
        disks = disk_mb or {}
        if self.why_no_spaces:
            self.spaces = {}
            ports = {name: free_port() for name in (HUB, *sites)}
            self.link = Proxied(self.home / "link", sites, ports[HUB], seed)
        else:
            self.spaces = spaces.make((HUB, *sites))
            ports = dict.fromkeys((HUB, *sites), 8470)
            self.link = Wan(self.home / "link", self.spaces, ports[HUB], seed)
        self.nodes = {
            name: BranchNode(self.home / name, HUB if name == HUB else "site", self.spaces.get(name),
                             port=ports[name], disk_mb=disks.get(name, 0))
            for name in (HUB, *sites)
        }  # fmt: skip
        self.hub = self.nodes[HUB]
        self.units, self.units_of, self.streams = {}, {}, {}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Nodes and link up; nobody has joined yet."""
        self.link.start()
        self.at_once(lambda node: node.start())

    def at_once(self, what, names=None):
        """Do it to several nodes side by side; the answers by name."""
        names = list(names or self.nodes)
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(lambda n: what(self.nodes[n]), names), strict=True))

    def found(self):
        """The tenant, at the hub, by the command that people use."""
        password = self.home / "password"
        password.write_text(PASSWORD)
        self.hub.nexus("init", "--tenant", SLUG, "--name", "Branches", "--email", OWNER, "--password-file",
                       password, "--template", "multi_branch_sales")  # fmt: skip
        owner = self.person(HUB)
        (head,) = owner.rows('sys.unit where name = "Head office"')
        owner.make("sys.unit", name=FAIR, sort="branch", parent=head["id"], tz="Europe/Kyiv")
        self.units = {row["fields"]["name"]: row["id"] for row in owner.rows("sys.unit")}
        tenant = self.hub.sql("SELECT tenant_id FROM tenant_state")[0][0]
        common = [common_stream(tenant, name) for name in ("shared", "schema")]
        self.units_of = {HUB: list(self.units.values())}
        for site in self.sites:
            # Each has its branch, and both the stand at the fair.
            self.units_of[site] = [self.units[FAIR], self.units[UNITS[site]]]
            self.streams[site] = [*common, *map(UUID, self.units_of[site])]

    def invite(self, site):
        """A one-time code for a site, which will hold its own branch and the stand at the fair."""
        units = f"{FAIR},{UNITS[site]}"
        said = self.hub.nexus("node", "invite", site, "--prefix", PREFIXES[site], "--tenant", SLUG, "--units", units)  # fmt: skip
        return find_code(said)

    def join(self, site):
        """The site joins over its link, running; it is whole when its people can sign in."""
        code = self.invite(site)
        # Signatures make it good; the long-distance network of the test has no TLS.
        plain = ["--insecure-http"] if self.spaces else []
        self.nodes[site].nexus("node", "join", self.link.hub_url[site], "--code", code, *plain)
        wait_until(
            lambda: self.can_sign_in(site), JOIN_S, f"the owner can sign in at {site}", every=1.0
        )

    def join_all(self):
        """All sites side by side, over links without their delay: a snapshot is many questions."""
        for site in self.sites:
            self.link.set(site, delay=0.0)
        with ThreadPoolExecutor(len(self.sites)) as pool:
            list(pool.map(self.join, self.sites))
        for site in self.sites:
            self.link.set(site, delay=FAR["delay"])

    def can_sign_in(self, name):
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            return bool(self.person(name))
        return False

    def person(self, name, email=OWNER, password=PASSWORD, seconds=60):
        """Somebody signed in at a node."""
        url = self.nodes[name].url
        body = {"tenant": SLUG, "email": email, "password": password}
        answer = httpx.post(f"{url}{API}/session", json=body, timeout=seconds, headers=OVER_TLS)
        assert answer.status_code == 201, answer.text
        person = Person(url, answer.json()["token"])
        person.http.headers.update(OVER_TLS)
        return person

    def cut(self, site):
        self.link.cut(site)

    def heal_all(self):
        for site in self.sites:
            self.link.set(site, is_down=False)
            self.link.heal(site)

    def memory_mb(self):
        """What each node weighs, by part."""
        return {name: node.resident_mb() for name, node in self.nodes.items() if node.up}

    def stop(self):
        self.at_once(lambda node: node.remove())
        with contextlib.suppress(Exception):
            self.link.stop()
        spaces.remove(self.spaces)
        if not os.environ.get("NEXUS_KEEP"):
            shutil.rmtree(self.home, ignore_errors=True)


def find_code(said):
    """The one-time code in what `nexus node invite` printed."""
    found = re.search(r"nxj_[A-Za-z0-9_-]{60,}", said)
    assert found, said
    return found.group()
