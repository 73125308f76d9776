"""Full-text search: what people type, as a tsquery that never fails.

Words are AND-ed, each matches as a prefix, a phrase in quotes matches as a phrase. Every record
carries the lexeme of its tenant and kind in the same vector, so one index serves all. A reader
who may not read every searchable field gets a second test over the fields they may read: a
hidden text is never found, not even as a count.
"""

from __future__ import annotations

import re

from appliance.kernel.profile import Mode
from appliance.kernel.query import search_scope_lexeme
from appliance.kernel.text import searchable
from appliance.read.names import Names, fail

_CHUNK = re.compile(r'"([^"]*)"|(\S+)')
_WORDS_MAX = 16
# Types whose stored text is what is searched; others (choices by label, phones by digits) are
# found only by readers of the whole record.
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
    found = f"{alias}.search @@ ({scope} && {words})"
    fields = [f for f in kind.fields if f.searchable]
    readable = [f for f in fields if ctx.profile.mode(kind.key, f) >= Mode.READ]
    if len(readable) == len(fields):
        return found
    texts = [f"{alias}.number", *(f"{alias}.data->>'{f.fid}'" for f in readable if f.type in _PLAIN)]
    visible = " || ' ' || ".join(f"coalesce({t}, '')" for t in texts)
    return f"{found} AND to_tsvector('nexus', translate({visible}, 'ёЁ', 'еЕ')) @@ {words}"
