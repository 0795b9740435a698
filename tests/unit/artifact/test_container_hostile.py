"""Manifests that nobody packed are refused, in little time and memory."""

from __future__ import annotations

import hashlib

import pytest

from hotstart.artifact.container import read
from tests.unit.artifact.containers import Hot, contents, entry, forged, packed, refused


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ([entry("a", 0, b"abc", size=10 << 30)], "size"),
        ([entry("a", 0, b"abc", size=2**63 - 1)], "size"),
        ([entry("a", 0, b"abc", size=2**63)], "manifest"),
        ([entry("a", 0, b"abc", size=10**4000)], "manifest"),
        ([entry("a", 10**4000, b"abc")], "manifest"),
        ([entry("a", 0, b"abc", size=-3)], "manifest"),
        ([entry("a", -64, b"abc")], "manifest"),
        ([entry("a", 64, b"abc")], "manifest"),
        ([entry("a", 1, b"bc")], "manifest"),
        ([entry("a", 0, b"abc"), entry("b", 0, b"abc")], "manifest"),
        ([entry("a", 0, b"abc"), entry("b", 3, b"")], "manifest"),
        ([entry("b", 64, b""), entry("a", 0, b"abc")], "manifest"),
        ([entry("a", 0, b""), entry("a", 0, b"abc")], "manifest"),
        ([entry("", 0, b"abc")], "manifest"),
        ([entry("a", 0, b"ab")], "size"),
        ([], "size"),
        ([entry("a", 0, b"xyz")], "blob a"),
        ([entry("a", 0, b"abc", sha256="")], "blob a"),
        ([entry("a", 0, b"abc", sha256="0" * 100_000)], "blob a"),
        ([entry("a", 0, b"abc", sha256=hashlib.sha256(b"abc").hexdigest().upper())], "blob a"),
    ],
)
def test_a_table_that_does_not_fit_the_file_is_refused(hot: Hot, table: object, part: str) -> None:
    assert refused(hot(forged({"blobs": table}, b"abc"))).part == part


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"blobs"',
        "{}",
        '{"blobs": null}',
        '{"blobs": {}}',
        '{"blobs": [1]}',
        '{"blobs": [null]}',
        '{"blobs": [[]]}',
        '{"blobs": [{}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": 0}]}',
        '{"blobs": [{"name": 1, "offset": 0, "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": null, "offset": 0, "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": "0", "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0.5, "size": 0, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": true, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": 1e999, "sha256": ""}]}',
        '{"blobs": [{"name": "a", "offset": 0, "size": 0, "sha256": 5}]}',
        '{"blobs": [{"name": "\\ud800", "offset": 0, "size": 0, "sha256": ""}]}',
        '{"blobs": []',
        '{"blobs": []}}',
        '{"blobs": []} {}',
        '{"blobs": [], "x": NaN}',
        '{"blobs": [], "x": undefined}',
        "{'blobs': []}",
        '\ufeff{"blobs": []}',
        "\0",
    ],
)
def test_a_manifest_of_another_form_is_refused(hot: Hot, text: str) -> None:
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize("digits", [20, 4301, 100_000])
def test_huge_integers_are_refused(hot: Hot, digits: int) -> None:
    text = '{"blobs": [{"name": "a", "offset": 0, "size": %s, "sha256": ""}]}' % ("9" * digits)
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"blobs": [], "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"x": ' + '{"x": ' * 100_000 + "1" + "}" * 100_000 + ', "blobs": []}',
        '{"blobs": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"blobs": [{"name": ' + "[" * 100_000 + "]" * 100_000 + "}]}",
    ],
)
def test_deep_nesting_is_refused(hot: Hot, text: str) -> None:
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize(
    "text",
    [b'{"blobs": [], "x": "\xff"}', b'{"blobs": [], "\xed\xa0\x80": 1}', b"\xff\xfe{\0}\0"],
)
def test_a_manifest_that_is_no_utf_8_is_refused(hot: Hot, text: bytes) -> None:
    assert refused(hot(forged(text))).part == "manifest"


@pytest.mark.parametrize(
    "name", ["n" * 100_000, "\x1b[2J" * 50, "a\nb", "\u202etext", "\U0001f600" * 999]
)
def test_names_in_messages_are_short_and_on_one_line(hot: Hot, name: str) -> None:
    error = refused(hot(forged({"blobs": [entry(name, 0, b"xyz")]}, b"abc")))
    assert len(error.part) < 1000
    assert error.part.isprintable()
    assert str(error).isprintable()


def test_two_long_names_that_are_the_same_are_refused(hot: Hot) -> None:
    error = refused(hot(forged({"blobs": [entry("n" * 10_000, 0, b"")] * 2})))
    assert "two named nnn" in str(error)


def test_many_empty_blobs_are_no_trouble(hot: Hot) -> None:
    blobs = {str(number): b"" for number in range(10_000)}
    assert contents(read(hot(packed({}, blobs))))[1] == blobs


def test_nothing_of_a_size_that_a_manifest_claims_is_allocated(hot: Hot) -> None:
    tables = [entry(str(number), 0, b"", size=1 << 62, sha256="") for number in range(3)]
    for number, blob in enumerate(tables):
        blob["offset"] = number << 62
    assert refused(hot(forged({"blobs": tables}))).part in ("size", "manifest")
