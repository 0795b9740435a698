"""Highlight generated code for a page, with Pygments."""

from __future__ import annotations

import html
from collections.abc import Iterator

from pygments import lex
from pygments.lexer import Lexer
from pygments.lexers import CppLexer, PythonLexer
from pygments.token import Comment, Keyword, Literal, Name, String, _TokenType

LONGEST = 100_000
"""Characters; longer code is shown as it is, since it would make a page slow."""

_CLASSES: tuple[tuple[_TokenType, str], ...] = (
    (Comment.Preproc, "hp"),
    (Comment, "hc"),
    (Keyword, "hk"),
    (String, "hs"),
    (Literal, "hn"),
    (Name.Function, "hf"),
    (Name.Builtin, "hb"),
    (Name.Decorator, "hf"),
)


def highlighted(name: str, code: str) -> str:
    """Code as HTML, with a `span` around what stands out; `name` tells the language."""
    if len(code) > LONGEST:
        return html.escape(code)
    lexer: Lexer = PythonLexer() if name.endswith(".py") else CppLexer()
    return "".join(_spans(lexer, code))


def _spans(lexer: Lexer, code: str) -> Iterator[str]:
    before, held = "", ""
    for token, text in lex(code, lexer):
        kind = next((name for other, name in _CLASSES if token in other), "")
        if kind != before:
            yield _span(before, held)
            before, held = kind, ""
        held += text
    yield _span(before, held)


def _span(kind: str, text: str) -> str:
    escaped = html.escape(text, quote=False)
    return f'<span class="{kind}">{escaped}</span>' if kind else escaped
