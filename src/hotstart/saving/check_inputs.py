"""Take the inputs that a user gave for the check at save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotstart.errors import OptionsError
from hotstart.runtime.entry.generated_entry import Entry
from hotstart.saving.examples import Example, given_example


def given_examples(
    entries: Mapping[str, Entry], inputs: Any, check: bool
) -> dict[str, tuple[Example, ...]]:
    """Turn the inputs of `Program.save` into examples, by the call's name.

    Args:
        entries: the entries of a program, by the name of the call.
        inputs: as a user gave them.
        check: whether there is a check at all.

    Raises:
        OptionsError: they are no inputs, or are for a call that does not exist.
        ContractError: they are outside the contract.
    """
    if inputs is None:
        return {}
    if not check:
        raise OptionsError("check_inputs: got some with check=False, takes them with a check only")
    by_name = inputs if isinstance(inputs, Mapping) else {"": inputs}
    return {name: _of(entries, name, given) for name, given in by_name.items()}


def _of(entries: Mapping[str, Entry], name: str, given: Any) -> tuple[Example, ...]:
    if name not in entries:
        named = ", ".join(map(repr, entries))
        raise OptionsError(
            f"check_inputs: got inputs for the call {name!r}, takes those of: {named}, as in "
            f"{{{next(iter(entries))!r}: (args, kwargs)}}"
        )
    entry = entries[name]
    found = []
    for args, kwargs in _pairs(given):
        try:
            refusal = entry.refusal_of(args, kwargs)
        except TypeError as error:
            raise OptionsError(f"check_inputs: {error}") from None
        if refusal is not None:
            raise refusal
        found.append(given_example(entry.call.contract, args, kwargs))
    return tuple(found)


def _pairs(given: Any) -> list[tuple[Sequence[Any], Mapping[str, Any]]]:
    pairs = given if isinstance(given, list) else [given]
    for pair in pairs:
        match pair:
            case (tuple() | list(), Mapping()):
                continue
        raise OptionsError(
            f"check_inputs: got {_described(pair)}, takes (args, kwargs), such as "
            "((x,), {}), or a list of such pairs"
        )
    return pairs


def _described(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(part).__name__ for part in value)})"
    return f"a {type(value).__name__}"
