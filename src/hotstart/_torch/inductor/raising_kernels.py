"""Let kernels raise errors about values of tensors, such as an index that is out of bounds.

Inductor's C++ kernels (2.11 to 2.15) throw from the middle of loops. An exception that leaves a
parallel loop ends the process.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

log = logging.getLogger(__name__)

_THROWS = re.compile(r"\b(?:AOTI_)?TORCH_CHECK\(")
_INDEX = re.compile(
    r'\b(?:AOTI_)?TORCH_CHECK\((?P<holds>.+), "index out of bounds:(?:.* <)? (?P<size>[^"<]+)"\);'
)
_SHARED = re.compile(r"\s*#pragma omp for\b(?:.*\bcollapse\((?P<loops>\d+)\))?")
_NO_TRY = "a kernel ends the process where it finds a wrong index"

_KEPT = """\
#include <atomic>
#include <exception>
#include <stdexcept>
#include <string>
namespace {
// The first exception of loops that threads share, to be thrown where they have ended.
struct Kept {
    std::atomic_flag taken = ATOMIC_FLAG_INIT;
    std::exception_ptr first;
    void keep() noexcept {
        if (!taken.test_and_set()) first = std::current_exception();
    }
    void rethrow() const {
        if (first) std::rethrow_exception(first);
    }
};
[[noreturn]] void throw_out_of_range(int64_t size) {
    throw std::out_of_range(
        "index out of range: a dimension has size " + std::to_string(size));
}
}
"""

CALL = (
    "try {{ kernel({}); }} catch (const std::out_of_range& error) {{"
    " PyErr_SetString(PyExc_IndexError, error.what()); return nullptr; }} Py_RETURN_NONE;"
)
"""The call of a kernel by its binding to Python, as a format that is given the arguments."""


def raising(source: str) -> str:
    """Write the source of a kernel so that exceptions in it reach its caller.

    A wrong index becomes `std::out_of_range`, whose text has the bound.
    """
    if not _THROWS.search(source):
        return source
    lines = source.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith('extern "C"')), None)
    opening = next((n for n, line in enumerate(lines[start:], start or 0) if line == "{"), None)
    if start is None or opening is None:
        log.debug("%s: no function is found in its source", _NO_TRY)
        return source
    closing = _end(lines, opening)
    added: dict[int, str] = {opening: "    Kept kept;", closing - 1: "    kept.rethrow();"}
    for first, last in _bodies(lines[:closing]):
        indent = " " * (_indent(lines[first]) + 4)
        added[first] = f"{indent}try {{"
        added[last - 1] = f"{indent}}} catch (...) {{ kept.keep(); }}"
    written: list[str] = []
    for number, line in enumerate(lines):
        written.append(_INDEX.sub(r"if (!(\g<holds>)) throw_out_of_range(\g<size>);", line))
        if number in added:
            written.append(added[number])
    head = next(n for n, line in enumerate(written) if line.startswith('extern "C"'))
    return "\n".join([*written[:head], _KEPT.rstrip(), *written[head:], ""])


def _bodies(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the lines of the braces around one turn of each shared loop."""
    for number, line in enumerate(lines):
        if shared := _SHARED.match(line):
            loops = int(shared["loops"] or 1)
            heads = [n for n in range(number, len(lines)) if lines[n].lstrip().startswith("for(")]
            first = heads[loops - 1] + 1
            if lines[first].strip() == "{":
                yield first, _end(lines, first)
            else:
                log.debug("%s: a shared loop has no braces", _NO_TRY)


def _end(lines: list[str], opening: int) -> int:
    """Find the line that closes a brace: the next one as far to the right."""
    closed = lines[opening].replace("{", "}")
    return next(n for n in range(opening, len(lines)) if lines[n] == closed)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
