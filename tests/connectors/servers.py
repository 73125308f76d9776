"""Real servers for transports, in threads and processes of the test: SSH, FTP over TLS, HTTPS, IMAP."""

import base64
import contextlib
import datetime
import hashlib
import http.server
import ipaddress
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from pathlib import Path

import paramiko
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
SFTP_SERVER = next(
    (p for p in ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server") if Path(p).exists()),
    None,
)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def make_certificate(folder, *addresses):
    """A certificate for localhost that signs itself; the file with both its halves, and its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", *addresses)]
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both, alone = folder / "server.pem", folder / "ca.pem"
    both.write_bytes(private + certificate)
    alone.write_bytes(certificate)
    return both, alone


def make_ssh_key(path):
    """A private key file in OpenSSH's form; its public line and fingerprint."""
    key = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    path.chmod(0o600)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return public.decode(), "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@contextlib.contextmanager
def run_sshd(folder, authorised, more=()):
    """OpenSSH's own server; its port and the fingerprint of its host key."""
    _, fingerprint = make_ssh_key(folder / "host_key")
    (folder / "authorized_keys").write_text(authorised + "\n")
    port = free_port()
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key", "UsePAM no",
        f"AuthorizedKeysFile {folder}/authorized_keys", "StrictModes no", "PermitRootLogin yes",
        f"PidFile {folder}/sshd.pid", f"Subsystem sftp {SFTP_SERVER}", *more,
    ]  # fmt: skip
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    child = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        yield port, fingerprint
    finally:
        child.terminate()
        child.wait(10)


def wait_for(port):
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


class PlainSftp(paramiko.SFTPServerInterface):
    """A small old server: a folder, no posix_rename, no rename when told so."""

    root = None
    renames = True

    def _path(self, name):
        return Path(str(self.root) + self.canonicalize(name))

    def list_folder(self, path):
        return [
            paramiko.SFTPAttributes.from_stat(p.stat(), p.name) for p in self._path(path).iterdir()
        ]

    def stat(self, path):
        try:
            return paramiko.SFTPAttributes.from_stat(self._path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def open(self, path, flags, attr):
        try:
            file = os.fdopen(os.open(self._path(path), flags, 0o600), "r+b" if flags & os.O_RDWR or flags & os.O_WRONLY else "rb", buffering=0)  # fmt: skip
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = handle.writefile = file
        return handle

    def rename(self, old, new):
        if not self.renames:
            return paramiko.SFTP_OP_UNSUPPORTED
        if self._path(new).exists():
            return paramiko.SFTP_FAILURE
        self._path(old).rename(self._path(new))
        return paramiko.SFTP_OK

    def posix_rename(self, old, new):
        if not self.renames:
            return paramiko.SFTP_OP_UNSUPPORTED
        self._path(old).replace(self._path(new))
        return paramiko.SFTP_OK

    def remove(self, path):
        self._path(path).unlink()
        return paramiko.SFTP_OK

    def mkdir(self, path, attr):
        self._path(path).mkdir()
        return paramiko.SFTP_OK


class _Door(paramiko.ServerInterface):
    def check_auth_password(self, username, password):
        good = (username, password) == ("shop", "secret")
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username):
        return "password"

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED


@contextlib.contextmanager
def run_plain_sftp(folder, served, renames=True):
    """An SFTP server in threads, with a password; its port and fingerprint."""
    _, fingerprint = make_ssh_key(folder / "plain_key")
    key = paramiko.Ed25519Key.from_private_key_file(str(folder / "plain_key"))
    chosen = type("Chosen", (PlainSftp,), {"root": served, "renames": renames})
    listener = socket.create_server(("127.0.0.1", 0))
    lines = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                line = paramiko.Transport(sock)
                line.add_server_key(key)
                line.set_subsystem_handler("sftp", paramiko.SFTPServer, chosen)
                lines.append(line)
                with contextlib.suppress(Exception):
                    line.start_server(server=_Door())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], fingerprint
    finally:
        listener.close()
        for line in lines:
            line.close()


@contextlib.contextmanager
def run_ftp(folder, certificate, handler_changes=None):
    """pyftpdlib with TLS on both lines; its port. Its log of commands is `run_ftp.commands`."""
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import TLS_FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

    people = DummyAuthorizer()
    people.add_user("shop", "secret", str(folder), perm="elradfmwMT")
    changes = {
        "authorizer": people, "certfile": str(certificate), "tls_control_required": True,
        "tls_data_required": True, "ssl_context": None, **(handler_changes or {}),
    }  # fmt: skip
    chosen = type("Chosen", (TLS_FTPHandler,), changes)
    server = FTPServer(("127.0.0.1", 0), chosen, ioloop=IOLoop())
    going = threading.Event()
    going.set()

    def serve():
        while going.is_set():
            server.serve_forever(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        going.clear()
        thread.join(5)
        server.close_all()


@contextlib.contextmanager
def run_https(certificate, answer):
    """HTTPS whose every GET is answered by `answer(handler)`; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with contextlib.suppress(ConnectionError):
                answer(self)

        def say(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def run_tls_front(certificate, address, port):
    """TLS before a port of loopback, as a proxy of a company has it; the port it listens on."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection(("127.0.0.1", port)) as behind:
                back = threading.Thread(target=self.pump, args=(behind, self.request), daemon=True)
                back.start()
                self.pump(self.request, behind)
                back.join(5)

        def pump(self, source, sink):
            with contextlib.suppress(OSError):
                while piece := source.recv(65_536):
                    sink.sendall(piece)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def get_request(self):
            sock, peer = super().get_request()
            return context.wrap_socket(sock, server_side=True), peer

        def handle_error(self, request, client_address):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server((address, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def run_imap(certificate, messages, validity="7"):
    """As much of IMAP4rev1 as reading takes; `messages`: uid to bytes, looked at anew each time."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.say("* OK ready")
            for raw in self.rfile:
                tag, _, rest = raw.decode().rstrip("\r\n").partition(" ")
                word = rest.upper()
                if word.startswith("CAPABILITY"):
                    self.say("* CAPABILITY IMAP4rev1")
                elif word.startswith("LOGIN") and '"secret"' not in rest:
                    self.say(f"{tag} NO wrong")
                    continue
                elif word.startswith("EXAMINE"):
                    self.say(f"* {len(messages)} EXISTS")
                    self.say(f"* OK [UIDVALIDITY {validity}] fine")
                elif word.startswith("UID SEARCH"):
                    last = int(rest.split()[-1].partition(":")[0])
                    # As RFC 3501 has it, `n:*` names the last one although it is older.
                    found = [u for u in messages if u >= last] or sorted(messages)[-1:]
                    self.say("* SEARCH " + " ".join(map(str, found)))
                elif word.startswith("UID FETCH"):
                    uid = int(rest.split()[2])
                    body = messages[uid]
                    if "BODY" in word:
                        self.say(f"* 1 FETCH (UID {uid} BODY[] {{{len(body)}}}")
                        self.wfile.write(body)
                        self.say(")")
                    else:
                        self.say(f"* 1 FETCH (UID {uid} RFC822.SIZE {len(body)})")
                self.say(f"{tag} OK done")

        def say(self, line):
            self.wfile.write(line.encode() + b"\r\n")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def get_request(self):
            sock, address = super().get_request()
            return context.wrap_socket(sock, server_side=True), address

        def handle_error(self, request, client_address):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
