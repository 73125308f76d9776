"""Where a token comes from, and the defence of cookies against requests from other sites.

A bearer token is never sent by a browser on its own; a cookie is. So a cookie counts for an
unsafe method only with our own header (which a foreign page cannot send without leave) and with
a Sec-Fetch-Site or Origin that says the request is from here. Neither is taken over plain HTTP
from another machine.
"""

from __future__ import annotations

from base64 import b64decode
from http.cookies import CookieError, SimpleCookie

from appliance.access.session import ended
from appliance.base.errors import Forbidden, Unauthenticated
from appliance.http.visit import Scope, header, is_local, is_secure

OWN_HEADER = "x-nexus-client"
SECURE_COOKIE = "__Host-sid"
# Browsers do not store a __Host- cookie over plain HTTP, which only loopback may speak.
LOCAL_COOKIE = "nexus-sid"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_COOKIE_CHARS_MAX = 4_096


def find_token(scope: Scope) -> str:
    """The token of a request. Raises Unauthenticated, Forbidden."""
    check_transport(scope)
    given = header(scope, b"authorization")
    if given is not None:
        sort, _, token = given.partition(" ")
        if sort.lower() != "bearer" or not token:
            raise Unauthenticated("Send Authorization: Bearer <token>.", code="session.missing")
        return token.strip()
    held = _from_cookie(scope)
    if held is None:
        raise Unauthenticated(
            "Send Authorization: Bearer <token>, or sign in.", code="session.missing"
        )
    if scope["method"] not in _SAFE:
        check_same_site(scope)
    return held


def read_basic(given: str) -> str:
    """The password of an Authorization: Basic, which programs of others send an API key as.
    Raises Unauthenticated.
    """
    sort, _, coded = given.partition(" ")
    try:
        _, _, password = b64decode(coded, validate=True).decode().partition(":")
    except ValueError:
        password = ""
    if sort.lower() != "basic" or not password:
        raise ended()
    return password.strip()


def check_transport(scope: Scope) -> None:
    """Refuse credentials over plain HTTP from another machine. Raises Forbidden."""
    if not is_secure(scope) and not is_local(scope):
        raise Forbidden("Credentials are taken over HTTPS only.", code="request.insecure")


def check_same_site(scope: Scope) -> None:
    """Refuse what another site made the browser send. Raises Forbidden."""
    site, origin = header(scope, b"sec-fetch-site"), header(scope, b"origin")
    if site is not None:
        is_ours = site == "same-origin"
    else:
        scheme = "https" if is_secure(scope) else "http"
        is_ours = origin is not None and origin == f"{scheme}://{header(scope, b'host')}"
    if not is_ours or not header(scope, OWN_HEADER.encode()):
        raise Forbidden(
            "A request with a session cookie must come from the node's own pages and carry the "
            "header X-Nexus-Client; programs send a bearer token.",
            code="request.cross_site",
        )


def cookie_name(scope: Scope) -> str:
    """The name of the session cookie over this transport."""
    return SECURE_COOKIE if is_secure(scope) else LOCAL_COOKIE


def set_cookie(scope: Scope, token: str, seconds: int) -> str:
    """The Set-Cookie value of a session; zero seconds and no token end it."""
    secure = "; Secure" if is_secure(scope) else ""
    return (
        f"{cookie_name(scope)}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}"
    )


def _from_cookie(scope: Scope) -> str | None:
    given = header(scope, b"cookie")
    if given is None or len(given) > _COOKIE_CHARS_MAX:
        return None
    try:
        found = SimpleCookie(given).get(cookie_name(scope))
    except CookieError:
        raise ended() from None
    return found.value if found else None
