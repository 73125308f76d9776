"""Rule texts into something that scans. One bad rule fails all: zero rules must never look fine.

Every rule says in its meta what it means: `verdict` (rejected or suspicious), `code`
(`rules.word`), `detail` (a sentence for people). A rule without them does not compile here, nor
does one with a slow pattern, an include, or a compiler warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yara_x

from quarantine.contract import Verdict
from quarantine.rules.pack import PackError, SignedPack

VERDICTS = (Verdict.REJECTED.value, Verdict.SUSPICIOUS.value)
_META = {
    "verdict": "^(" + "|".join(VERDICTS) + ")$",
    "code": r"^rules\.[a-z0-9_]+$",
    "detail": r"^.{10,200}\.$",
}


def compile_sources(sources: Mapping[str, Mapping[str, str]]) -> yara_x.Rules:
    """Rules of several namespaces (publisher → name of source → text). Raises PackError."""
    compiler = yara_x.Compiler(error_on_slow_pattern=True, includes_enabled=False)
    for name, pattern in _META.items():
        compiler.allowed_metadata(
            name,
            yara_x.MetaType.STRING,  # type: ignore[arg-type] # the stub says int, it is an enum
            required=True,
            regexp=pattern,
            error=True,
        )
    for namespace, texts in sources.items():
        compiler.new_namespace(namespace)
        for name, text in sorted(texts.items()):
            try:
                compiler.add_source(text, origin=name)
            except yara_x.CompileError as fault:
                raise PackError(f"A rule of {name} is not one: {fault}") from fault
    if warnings := compiler.warnings():
        raise PackError(f"The rules compile with a warning: {warnings[0]['text']}")
    rules = compiler.build()
    if not any(True for _ in rules):
        raise PackError("The pack compiles to no rules at all.")
    return rules


def compile_packs(packs: Iterable[SignedPack]) -> yara_x.Rules:
    """The rules of verified packs together, each publisher in its own namespace."""
    return compile_sources({f"p{signed.publisher.hex()}": signed.pack.rules for signed in packs})
