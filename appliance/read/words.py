"""Full-text search: what people type, as a tsquery that never fails.

Words are AND-ed, each matches as a prefix, a phrase in quotes matches as a phrase. Every record
carries the lexeme of its tenant and kind in the same vector, so one index serves all. A reader
who may not read every searchable field gets a second test over the fields they may read: a
hidden text is never found, not even as a count.
"""

from __future__ import annotations

import re

import msgspec

from appliance.fields.choices import choices
from appliance.kernel.kind import Field
from appliance.kernel.profile import Mode
from appliance.kernel.query import search_scope_lexeme
from appliance.kernel.text import searchable
from appliance.read.names import Names, fail
from appliance.read.sql import Sql

_CHUNK = re.compile(r'"([^"]*)"|(\S+)')
_WORDS_MAX = 16
# Types whose stored text is what is searched.
_PLAIN = frozenset({"text", "long_text", "email", "url"})


def to_tsquery_text(typed: str) -> str:
    """The argument for to_tsquery: quoted chunks only, so no character has a meaning there."""
    parts: list[str] = []
    for phrase, word in _CHUNK.findall(searchable(typed)):
        chunk = (phrase or word.lstrip("+-")).replace("\\", " ").replace("'", " ").strip()
        if any(c.isalnum() for c in chunk):
            parts.append(f"'{chunk}'" if phrase else f"'{chunk}':*")
    return " & ".join(parts[:_WORDS_MAX])


def search_condition(names: Names, typed: str, at: str) -> str:
    """The record matches what was typed, within what the reader may read."""
    ctx, sql, kind, alias = names.ctx, names.sql, names.kind, names.alias
    text = to_tsquery_text(typed)
    if not text:
        fail(at, "search_empty", "Type at least one letter or digit to search for.")
    words = f"to_tsquery('nexus', {sql.value(text, 'text')})"
    scope = sql.value(f"'{search_scope_lexeme(ctx.tenant, kind.key)}'", "tsquery")
    # Words that PostgreSQL reads nothing in would leave the scope alone to match everything.
    found = f"{alias}.search @@ ({scope} && {words}) AND numnode({words}) > 0"
    fields = [f for f in kind.fields if f.searchable]
    readable = [f for f in fields if ctx.profile.mode(kind.key, f) >= Mode.READ]
    if len(readable) == len(fields):
        return found
    texts = [f"{alias}.number", *(t for f in readable if (t := _searched(sql, alias, f)))]
    visible = " || ' ' || ".join(f"coalesce({t}, '')" for t in texts)
    return f"{found} AND to_tsvector('nexus', translate({visible}, 'ёЁ', 'еЕ')) @@ {words}"


def _searched(sql: Sql, alias: str, field: Field) -> str:
    """What search finds of a field, from its stored value: `search_text` in SQL."""
    value = f"{alias}.data->>{sql.value(field.fid, 'text')}"
    if field.type in _PLAIN:
        return value
    if field.type == "phone":
        return f"regexp_replace({value}, '[^0-9]+', '', 'g')"
    if field.type not in ("choice", "multi_choice"):
        return ""
    named = {}
    for key, choice in choices(field).items():
        labels = choice.get("labels")
        named[key] = " ".join(map(str, labels.values())) if isinstance(labels, dict) else key
    texts = sql.value(msgspec.json.encode(named).decode(), "jsonb")
    if field.type == "choice":
        return f"({texts}->>({value}))"
    members = f"{alias}.data->{sql.value(field.fid, 'text')}"
    return (
        f"(SELECT string_agg({texts}->>m, ' ') FROM jsonb_array_elements_text("
        f"CASE jsonb_typeof({members}) WHEN 'array' THEN {members} ELSE '[]' END) m)"
    )
