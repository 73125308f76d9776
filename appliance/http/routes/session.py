"""Sign in, sign out, and the sessions of a person."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

import msgspec
from litestar.response.base import ASGIResponse

from appliance.access import secrets, switch
from appliance.access.login import Attempt, sign_in
from appliance.access.memberships import Choice
from appliance.access.sessions import (
    EVERYTHING,
    LOGINS,
    SessionRow,
    end_others,
    end_session,
    list_sessions,
)
from appliance.base.clock import now
from appliance.base.errors import Forbidden
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.credentials import check_transport, set_cookie
from appliance.http.route import API, PUBLIC, SIGNED_IN, Book

book = Book("session")
PATH = f"{API}/session"


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`totp` is a six-digit or a recovery code; `cookie` keeps the token out of the page."""

    tenant: str
    email: str
    password: str
    totp: str | None = None
    profile: str | None = None
    cookie: bool = False


class Opened(msgspec.Struct, frozen=True):
    """A new session. The token is shown this once; it is null when it went into a cookie.
    `stale_days` is not 0 on a branch that has not heard from its head office for so long.
    """

    token: str | None
    expires_at: datetime
    tenant: str
    profile: str
    must_change_password: bool
    stale_days: int = 0


class Switching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of your profiles; `cookie` keeps the token out of the page."""

    profile: str
    cookie: bool = False


class Profiles(msgspec.Struct, frozen=True):
    """The profiles a person may work under."""

    profiles: list[Choice]


class Ended(msgspec.Struct, frozen=True):
    """How many sessions ended."""

    ended: int


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The password and a present code."""

    current_password: str
    code: str


class Sessions(msgspec.Struct, frozen=True):
    """Live sessions, newest first."""

    sessions: list[SessionRow]


class SessionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose sessions."""

    all: bool = False


class PasswordChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who holds a session must still know the password to change it."""

    current_password: str
    password: str


class TotpProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The secret that was given out, and a code the authenticator made of it."""

    current_password: str
    secret: str
    code: str


class TotpEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A present code, so that a stolen session cannot take the second factor away."""

    current_password: str
    code: str


class RecoveryCodes(msgspec.Struct, frozen=True):
    """For a lost device; each is good once, and they are shown this once."""

    recovery_codes: list[str]


@book.route("POST", PATH, capability=PUBLIC, body=SignIn, answers={201: Opened})
async def open_session(ask: Ask) -> ASGIResponse:
    """Sign in. Whatever does not fit, the answer is the same."""
    check_transport(ask.scope)
    given = ask.read(SignIn)
    for name in ("tenant", "email", "password", "totp", "profile"):
        check_storable(getattr(given, name), f"/{name}")
    attempt = Attempt(given.tenant, given.email, given.password, given.totp, given.profile)
    label = (ask.header("user-agent") or "")[:120]
    done = await sign_in(
        ask.node.db, attempt, ask.node.settings.login, ask.visit.request_id, label=label
    )
    headers = {}
    if given.cookie:
        seconds = int((done.expires_at - now()).total_seconds())
        headers["Set-Cookie"] = set_cookie(ask.scope, done.token, seconds)
    token = None if given.cookie else done.token
    body = Opened(token, done.expires_at, done.tenant, done.profile, done.must_change_password,
                  done.stale_days)  # fmt: skip
    return reply(body, 201, headers)


@book.route("DELETE", PATH, capability=SIGNED_IN, with_first_password=True, answers={204: None})
async def close_session(ask: Ask) -> ASGIResponse:
    """Sign out."""
    assert ask.ctx.session is not None, "signed in by a session"
    await end_session(
        ask.node.db, ask.ctx, ask.ctx.session, own=True, sorts=EVERYTHING, reason="signed_out"
    )
    return empty(204, {"Set-Cookie": set_cookie(ask.scope, "", 0)})


@book.route("POST", f"{PATH}/switch", capability="sessions.own", body=Switching,
            answers={201: Opened})  # fmt: skip
async def switch_profile(ask: Ask) -> ASGIResponse:
    """Work under another of your profiles: a new token, and the old one ends."""
    given = ask.read(Switching)
    check_storable(given.profile, "/profile")
    done = await switch.switch_profile(ask.node.db, ask.ctx, given.profile)
    headers = {}
    if given.cookie:
        seconds = int((done.expires_at - now()).total_seconds())
        headers["Set-Cookie"] = set_cookie(ask.scope, done.token, seconds)
    token = None if given.cookie else done.token
    body = Opened(token, done.expires_at, done.tenant, done.profile, done.must_change_password)
    return reply(body, 201, headers)


@book.route("GET", f"{API}/me/profiles", capability="sessions.own", answers={200: Profiles})
async def list_profiles(ask: Ask) -> ASGIResponse:
    """The profiles you may work under today."""
    return reply(Profiles(await switch.choices(ask.node.db, ask.ctx)))


@book.route("DELETE", f"{API}/sessions", capability="sessions.own", answers={200: Ended})
async def close_others(ask: Ask) -> ASGIResponse:
    """End all your sessions but this one; keys stay."""
    return reply(Ended(await end_others(ask.node.db, ask.ctx)))


@book.route("GET", f"{API}/sessions", capability="sessions.own", params=SessionParams,
            answers={200: Sessions})  # fmt: skip
async def list_own_sessions(ask: Ask) -> ASGIResponse:
    """Your live sessions; `all=true` those of everybody (sessions.manage)."""
    everybody = ask.params(SessionParams).all
    if everybody and not ask.ctx.profile.may("sessions.manage"):
        raise Forbidden("Your profile may see its own sessions only.")
    person = None if everybody else ask.ctx.actor
    return reply(Sessions(await list_sessions(ask.node.db, ask.ctx.tenant, person, LOGINS)))


@book.route("DELETE", f"{API}/sessions/{{id}}", capability="sessions.own", answers={204: None})
async def close_other_session(ask: Ask) -> ASGIResponse:
    """End one of your sessions, or anybody's with sessions.manage."""
    own = not ask.ctx.profile.may("sessions.manage")
    await end_session(
        ask.node.db, ask.ctx, ask.ident(), own=own, sorts=LOGINS, reason="ended_by_person"
    )
    return empty()


@book.route("POST", f"{API}/me/password", capability="sessions.own", with_first_password=True,
            body=PasswordChange, answers={204: None})  # fmt: skip
async def change_password(ask: Ask) -> ASGIResponse:
    """Set a new password; your other sessions end."""
    given = ask.read(PasswordChange)
    policy = ask.node.settings.login
    await secrets.change_password(
        ask.node.db, ask.ctx, given.current_password, given.password, policy
    )
    forget_first_password(ask.node.settings.data_dir, given.current_password)
    return empty()


@book.route("POST", f"{API}/me/totp", capability="sessions.own", answers={200: secrets.Begun})
async def begin_totp(ask: Ask) -> ASGIResponse:
    """A secret for an authenticator program; confirm it to make it count."""
    slug = ask.node.db.routes.of(ask.ctx.tenant, read=True).slug
    return reply(await secrets.begin_totp(ask.node.db, ask.ctx, slug))


@book.route("POST", f"{API}/me/totp/confirm", capability="sessions.own", body=TotpProof,
            answers={200: RecoveryCodes})  # fmt: skip
async def confirm_totp(ask: Ask) -> ASGIResponse:
    """From now on sign-in asks for a code."""
    given = ask.read(TotpProof)
    proof = (given.current_password, given.secret, given.code)
    codes = await secrets.confirm_totp(ask.node.db, ask.ctx, proof, ask.node.settings.login)
    return reply(RecoveryCodes(codes))


@book.route("POST", f"{API}/me/totp/codes", capability="sessions.own", body=Renewal,
            answers={200: RecoveryCodes})  # fmt: skip
async def renew_codes(ask: Ask) -> ASGIResponse:
    """Fresh recovery codes; the old ones are void."""
    given = ask.read(Renewal)
    policy = ask.node.settings.login
    return reply(
        RecoveryCodes(
            await secrets.renew_recovery_codes(
                ask.node.db, ask.ctx, given.current_password, given.code, policy
            )
        )
    )


@book.route(
    "DELETE", f"{API}/me/totp", capability="sessions.own", body=TotpEnd, answers={204: None}
)
async def remove_totp(ask: Ask) -> ASGIResponse:
    """Sign-in asks for the password alone again."""
    given = ask.read(TotpEnd)
    policy = ask.node.settings.login
    await secrets.remove_totp(ask.node.db, ask.ctx, given.current_password, given.code, policy)
    return empty()


def forget_first_password(folder: Path, used: str) -> None:
    """Remove the file with the generated first password once that password is changed.

    Where the folder belongs to another account the file is emptied; `nexus up` takes it away.
    """
    path = folder / "initial-owner-password"
    with contextlib.suppress(OSError):
        if path.read_text("utf-8").strip() == used:
            path.write_bytes(b"")
            path.unlink()
