"""Asking the HTTP API of another system: its limits are kept, its failures told apart and outlived.

One question is tried again within its own deadline, so that page 300 does not begin at page 1. What
is tried again must be harmless twice: a question that is not is asked once, and when its answer is
lost the outcome is unknown until it was read back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec

from connectors.sdk.retry import Policy, Trouble, as_trouble, wait_before
from connectors.transports.contract import CHUNK
from connectors.transports.rates import Bucket, Rate, bucket_of, turn_of
from connectors.transports.web import check_status, open_client, pin, told

ANSWER_MAX = 32 << 20
POLICY = Policy(tries=8, first_s=0.5, most_s=60.0, deadline_s=300.0)
_PLENTY = Rate(per_s=50.0, burst=50)
_SAID_MAX = 300
# Nothing was done by a question that never reached the other side or was turned away unread.
_NOT_DONE = frozenset({"name-unresolved", "http-429", "http-420", "http-503", "rate-limited"})
T = TypeVar("T")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `path` follows the base; `resource` names the limit that it counts for;
    `body` is JSON; `is_repeatable`: twice does what once does.
    """

    path: str
    method: str = "GET"
    params: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    resource: str = ""
    is_repeatable: bool = True


class Answer(msgspec.Struct, frozen=True):
    """What came back: `headers` by their names in lower case, `body` unpacked and whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Api:
    """One account at one system. It blocks; whoever asks does so in a thread.

    `account` names the limits in this process, never a secret. `learn` sees every answer, also
    those of failure, to keep the limits that its headers tell. `at_once`: how many questions the
    account may have under way; 0 for no bound.
    """

    def __init__(
        self, base: str, *, account: str, headers: Mapping[str, str],
        allowed: tuple[str, ...] = (), ca_file: str = "", rates: Mapping[str, Rate] | None = None,
        policy: Policy = POLICY, learn: Callable[[Answer, Bucket], None] | None = None,
        sleep: Callable[[float], None] = time.sleep, now: Callable[[], float] = time.monotonic,
        at_once: int = 0,
    ) -> None:  # fmt: skip
        self._base, self._account = base.rstrip("/"), account
        self._headers, self._allowed = dict(headers), allowed
        self._rates, self._policy, self._learn = dict(rates or {}), policy, learn
        self._sleep, self._now, self._at_once = sleep, now, at_once
        self._host = urlsplit(base).hostname or ""
        self._client = open_client(ca_file)

    def close(self) -> None:
        """End it."""
        self._client.close()

    def ask(self, question: Question, read: Callable[[Answer], T]) -> T:
        """The answer as `read` takes it. Raises Trouble.

        `read` raises Trouble for what only the body shows: a transient one is tried again.
        """
        end = self._now() + self._policy.deadline_s
        bucket = self._bucket(question.resource)
        tried = 0
        while True:
            bucket.take(end)
            try:
                with turn_of(self._account, self._at_once, end - self._now()):
                    answer = self._send(question, bucket)
                return read(answer)
            except (Trouble, OSError) as error:
                trouble = as_trouble(error)
            if not question.is_repeatable and not trouble.is_permanent:
                _check_undone(question, trouble)
            pause = wait_before(self._policy, tried, trouble.after_s)
            tried += 1
            is_late = self._now() + pause >= end
            if trouble.is_permanent or tried >= self._policy.tries or is_late:
                raise trouble
            if trouble.after_s:
                bucket.rest(trouble.after_s)
            self._sleep(pause)

    def ask_json(self, question: Question, shape: type[T]) -> T:
        """The answer as JSON of a shape. Raises Trouble."""
        return self.ask(question, lambda answer: read_json(answer, shape))

    def _bucket(self, resource: str) -> Bucket:
        rate = self._rates.get(resource, _PLENTY)
        return bucket_of(self._account, resource, rate, now=self._now, sleep=self._sleep)

    def _send(self, question: Question, bucket: Bucket) -> Answer:
        query = f"?{urlencode(question.params)}" if question.params else ""
        with told(self._host):
            pinned = pin(self._base + question.path + query, self._allowed, is_plain_allowed=True)
            kind = {"Content-Type": "application/json"} if question.body is not None else {}
            headers = {
                "Accept": "application/json", "Accept-Encoding": "gzip", **kind, **self._headers,
                **question.headers, **pinned.headers,
            }  # fmt: skip
            with self._client.stream(
                question.method, pinned.url, headers=headers, content=question.body,
                extensions=pinned.extensions,
            ) as response:  # fmt: skip
                answer = Answer(
                    response.status_code, {k.lower(): v for k, v in response.headers.items()},
                    _read_body(response),
                )  # fmt: skip
                if self._learn is not None:
                    self._learn(answer, bucket)
                if not 200 <= answer.status < 300:
                    _fail(response, answer)
                return answer


def read_json(answer: Answer, shape: type[T]) -> T:
    """A body of that shape. Raises Trouble: what is cut or a page of HTML may come right later."""
    body = answer.body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not body.startswith((b"{", b"[")):
        looks = "HTML" if body[:1] == b"<" else "no JSON"
        raise Trouble("not-json", f"the answer is {looks}, JSON was expected")
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise Trouble("answer-unknown", str(error)[:_SAID_MAX], is_permanent=True) from None
    except RecursionError:
        raise Trouble("too-deep", "the answer is nested too deep", is_permanent=True) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Trouble("truncated", f"the answer is cut or damaged: {error}"[:_SAID_MAX]) from None


def _read_body(response: httpx.Response) -> bytes:
    """The whole body, bounded by what it unpacks to, and proved to be as long as was told."""
    pieces, size = [], 0
    for piece in response.iter_bytes(CHUNK):
        size += len(piece)
        if size > ANSWER_MAX:
            text = f"an answer of more than {ANSWER_MAX} bytes"
            raise Trouble("file-too-large", text, is_permanent=True)
        pieces.append(piece)
    return b"".join(pieces)


def _fail(response: httpx.Response, answer: Answer) -> None:
    """Raises the Trouble of a status, with the first words of what the other side says of it."""
    try:
        check_status(response)
    except Trouble as trouble:
        said = " ".join(answer.body[:2_000].decode("utf-8", "replace").split())
        text = (
            f"{trouble.detail}: {said}"[:_SAID_MAX] if said and said[0] != "<" else trouble.detail
        )
        raise Trouble(
            trouble.code, text, is_permanent=trouble.is_permanent, after_s=trouble.after_s
        ) from None
    raise Trouble(f"http-{answer.status}", f"the server answered {answer.status}")


def _check_undone(question: Question, trouble: Trouble) -> None:
    """Raises where a question that may not be asked twice may have been heard."""
    if trouble.code not in _NOT_DONE:
        text = f"{question.method} {question.path}: {trouble.detail}; read back before it is sent"
        raise Trouble("outcome-unknown", text[:_SAID_MAX], is_permanent=True)
