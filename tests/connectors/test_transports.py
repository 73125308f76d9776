"""Files come whole or not at all over folders, SFTP and FTPS, from real servers."""

import os
import shutil
import threading

import pytest

from connectors.sdk.retry import Trouble
from connectors.transports.contract import Entry
from connectors.transports.fetch import fetch
from connectors.transports.folder import Folder
from connectors.transports.ftp import Ftp, FtpPlace
from connectors.transports.polls import Book, find_ready, note_taken, read_book, write_book
from connectors.transports.sftp import Sftp, SftpPlace
from tests.connectors import servers

LARGE = os.urandom(3 << 20)


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def box(tmp_path):
    folder = tmp_path / "box"
    folder.mkdir()
    (folder / "выписка.txt").write_bytes(b"one")
    (folder / "large.bin").write_bytes(LARGE)
    (folder / ".hidden").write_bytes(b"no")
    (folder / "coming.part").write_bytes(b"no")
    (folder / "sub").mkdir()
    return folder


@pytest.fixture(params=["folder", "sftp", "plain sftp", "ftps"])
def way(request, box, tmp_path):
    """Each transport onto the same folder, as a function that opens it."""
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    if request.param == "folder":
        yield lambda: Folder(box, may_move=True)
    elif request.param == "sftp":
        if not (servers.SSHD and servers.SFTP_SERVER):
            pytest.skip("there is no sshd here")
        public, _ = servers.make_ssh_key(tmp_path / "id")
        import pwd

        user = pwd.getpwuid(os.geteuid()).pw_name
        with servers.run_sshd(tmp_path, public) as (port, fingerprint):
            yield lambda: Sftp(
                SftpPlace(
                    host="127.0.0.1", port=port, user=user, fingerprints=(fingerprint,),
                    folder=str(box), key_file=str(tmp_path / "id"), may_move=True,
                )
            )  # fmt: skip
    elif request.param == "plain sftp":
        with servers.run_plain_sftp(tmp_path, box) as (port, fingerprint):
            yield lambda: Sftp(
                SftpPlace(
                    host="127.0.0.1", port=port, user="shop", fingerprints=(fingerprint,),
                    password_file=str(secret), may_move=True, folder="/",
                )
            )  # fmt: skip
    else:
        both, alone = servers.make_certificate(tmp_path)
        with servers.run_ftp(box, both) as port:
            yield lambda: Ftp(
                FtpPlace(
                    host="localhost", port=port, user="shop", password_file=str(secret),
                    ca_file=str(alone), may_move=True,
                )
            )  # fmt: skip


def test_files_are_listed_fetched_put_and_moved(way, box, here):
    transport = way()
    found = {e.name: e for e in transport.entries().entries}
    assert sorted(found) == ["large.bin", "выписка.txt"]
    assert fetch(transport, found["large.bin"], here).path.read_bytes() == LARGE
    assert fetch(transport, found["выписка.txt"], here).size == 3
    assert sorted(p.name for p in here.iterdir()) == sorted(
        p.name for p in here.iterdir() if len(p.name) == 64
    )
    transport.finish(found["выписка.txt"], is_failed=False)
    transport.finish(found["large.bin"], is_failed=True)
    assert (box / "done" / "выписка.txt").read_bytes() == b"one"
    assert (box / "failed" / "large.bin").exists()
    (box / "выписка.txt").write_bytes(b"two")
    transport.finish(found["выписка.txt"], is_failed=False)
    assert sorted(p.read_bytes() for p in (box / "done").iterdir()) == [b"one", b"two"]
    transport.put("order.xml", b"<order/>")
    transport.put("order.xml", b"<order/>")
    with pytest.raises(Trouble) as caught:
        transport.put("order.xml", b"<another/>")
    assert (caught.value.code, caught.value.is_permanent) == ("name-taken", True)
    assert (box / "order.xml").read_bytes() == b"<order/>"
    assert not [p.name for p in box.iterdir() if "order" in p.name and p.name != "order.xml"]
    with pytest.raises(Trouble) as caught:
        fetch(transport, found["large.bin"], here)
    assert caught.value.code == "file-vanished" and not caught.value.is_permanent
    transport.close()


def test_what_grows_while_it_is_read_leaves_nothing(way, box, here):
    transport = way()
    entry = next(e for e in transport.entries().entries if e.name == "large.bin")
    with (box / "large.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(Trouble) as caught:
        fetch(transport, entry, here)
    assert caught.value.code in ("truncated", "file-grows") and not caught.value.is_permanent
    assert list(here.iterdir()) == []
    with pytest.raises(Trouble, match="file-too-large"):
        fetch(transport, transport.look(entry), here, bytes_max=1 << 20)
    with pytest.raises(Trouble, match="timeout"):
        fetch(transport, transport.look(entry), here, deadline_s=-1)
    assert list(here.iterdir()) == []
    transport.close()


def test_only_what_stands_still_for_two_looks_is_fetched(box, tmp_path):
    transport, book = Folder(box), Book()
    assert find_ready(book, transport.entries()) == []
    (box / "large.bin").write_bytes(LARGE + b"grown")
    assert [e.name for e in find_ready(book, transport.entries())] == ["выписка.txt"]
    ready = find_ready(book, transport.entries())
    assert [e.name for e in ready] == ["large.bin", "выписка.txt"]
    for entry in ready:
        note_taken(book, entry)
    write_book(tmp_path / "book", book)
    book = read_book(tmp_path / "book")
    assert find_ready(book, transport.entries()) == []
    (box / "выписка.txt").write_bytes(b"another day")
    assert find_ready(book, transport.entries()) == []
    assert [e.name for e in find_ready(book, transport.entries())] == ["выписка.txt"]
    (tmp_path / "book").write_bytes(b"{damaged")
    assert read_book(tmp_path / "book") == Book()


def test_names_of_others_are_no_paths_here(box, here):
    os.symlink("/etc/passwd", box / "link.txt")
    (box / "a\nb.txt").write_bytes(b"x")
    listing = Folder(box).entries()
    assert [e.name for e in listing.entries] == ["large.bin", "выписка.txt"]
    assert "a\nb.txt" in listing.skipped
    with pytest.raises(OSError):
        fetch(Folder(box), Entry("link.txt"), here)
    shutil.rmtree(box)
    with pytest.raises(Trouble, match="folder-missing"):
        Folder(box).entries()


def plain(tmp_path, port, fingerprint, password="secret"):
    (tmp_path / "word").write_text(password)
    return SftpPlace(
        host="127.0.0.1", port=port, user="shop", fingerprints=(fingerprint,), folder="/",
        password_file=str(tmp_path / "word"),
    )  # fmt: skip


def test_a_changed_host_key_stops_before_anything_is_said(tmp_path, box):
    with servers.run_plain_sftp(tmp_path, box) as (port, fingerprint):
        with pytest.raises(Trouble) as caught:
            Sftp(plain(tmp_path, port, "SHA256:" + "A" * 43))
        assert (caught.value.code, caught.value.is_permanent) == ("host-key-changed", True)
        assert fingerprint in caught.value.detail and "secret" not in caught.value.detail
        with pytest.raises(Trouble, match="sign-in-refused"):
            Sftp(plain(tmp_path, port, fingerprint, "wrong"))


def test_a_server_that_renames_nothing_is_told_of_and_no_half_name_is_left(tmp_path, box):
    with servers.run_plain_sftp(tmp_path, box, renames=False) as (port, fingerprint):
        transport = Sftp(plain(tmp_path, port, fingerprint))
        with pytest.raises(Trouble) as caught:
            transport.put("order.xml", b"<order/>")
        assert "rename" in caught.value.detail
        assert not (box / "order.xml").exists()
        transport.close()


@pytest.mark.skipif(not servers.SSHD, reason="there is no sshd here")
def test_an_old_server_is_named_with_what_it_offers(tmp_path):
    public, _ = servers.make_ssh_key(tmp_path / "id")
    old = ["KexAlgorithms diffie-hellman-group14-sha1"]
    with servers.run_sshd(tmp_path, public, old) as (port, fingerprint):
        with pytest.raises(Trouble) as caught:
            Sftp(
                SftpPlace(
                    host="127.0.0.1", port=port, user="root", fingerprints=(fingerprint,),
                    key_file=str(tmp_path / "id"),
                )
            )  # fmt: skip
    assert (caught.value.code, caught.value.is_permanent) == ("no-common-algorithm", True)
    assert "diffie-hellman-group14-sha1" in caught.value.detail
    assert "OpenSSH" in caught.value.detail and "ssh-ed25519" in caught.value.detail


def test_ftps_refuses_a_certificate_that_nobody_signed(tmp_path, box):
    both, _ = servers.make_certificate(tmp_path)
    (tmp_path / "secret").write_text("secret")
    place = {"user": "shop", "password_file": str(tmp_path / "secret")}
    with servers.run_ftp(box, both) as port:
        with pytest.raises(Trouble) as caught:
            Ftp(FtpPlace(host="localhost", port=port, **place))
        assert (caught.value.code, caught.value.is_permanent) == ("certificate-untrusted", True)
    with pytest.raises(Trouble) as caught:
        Ftp(FtpPlace(host="localhost", port=servers.free_port(), **place))
    assert (caught.value.code, caught.value.is_permanent) == ("connection-failed", False)


def test_ftp_goes_on_after_a_cut_and_where_there_is_no_mlsd(tmp_path, box, here, monkeypatch):
    monkeypatch.setattr("connectors.transports.ftp.WAIT_S", 0.5)
    from pyftpdlib.handlers import TLS_DTPHandler

    both, alone = servers.make_certificate(tmp_path)
    (tmp_path / "secret").write_text("secret")
    cuts = []

    class Cutting(TLS_DTPHandler):
        def send(self, data):
            sent = super().send(data)
            if self.get_transmitted_bytes() > (1 << 20) and len(cuts) < 2:
                cuts.append(self.get_transmitted_bytes())
                self.close()
            return sent

    def unknown(self, *args):
        self.respond("502 Command not implemented.")

    changes = {"dtp_handler": Cutting, "ftp_MLSD": unknown}
    with servers.run_ftp(box, both, changes) as port:
        transport = Ftp(
            FtpPlace(
                host="localhost", port=port, user="shop", ca_file=str(alone),
                password_file=str(tmp_path / "secret"),
            )
        )  # fmt: skip
        found = {e.name: e for e in transport.entries().entries}
        assert sorted(found) == ["large.bin", "выписка.txt"]
        assert fetch(transport, found["large.bin"], here).path.read_bytes() == LARGE
        assert len(cuts) == 2
        transport.close()


def test_a_server_that_says_nothing_does_not_hang_us(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr("connectors.transports.sftp.WAIT_S", 0.3)
    monkeypatch.setattr("connectors.transports.ftp.WAIT_S", 0.3)
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        taken = []
        threading.Thread(
            target=lambda: [taken.append(listener.accept()) for _ in range(2)], daemon=True
        ).start()
        for attempt in (
            lambda: Sftp(plain(tmp_path, port, "SHA256:x")),
            lambda: Ftp(
                FtpPlace(
                    host="127.0.0.1", port=port, user="u", password_file=str(tmp_path / "secret")
                )
            ),
        ):
            with pytest.raises(Trouble) as caught:
                attempt()
            assert not caught.value.is_permanent
        for sock, _ in taken:
            sock.close()
