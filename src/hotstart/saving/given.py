"""Take the inputs that a user gave for the check at save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotstart.errors import OptionsError
from hotstart.runtime.caller import Caller
from hotstart.saving.examples import Example, given_example


def given_examples(
    callers: Mapping[str, Caller], inputs: Any, check: bool
) -> dict[str, tuple[Example, ...]]:
    """Turn the inputs of `Program.save` into examples, by the call's name.

    Args:
        callers: the calls of a program.
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
    return {name: _of(callers, name, given) for name, given in by_name.items()}


def _of(callers: Mapping[str, Caller], name: str, given: Any) -> tuple[Example, ...]:
    if name not in callers:
        named = ", ".join(map(repr, callers))
        raise OptionsError(
            f"check_inputs: got inputs for the call {name!r}, takes those of: {named}, as in "
            f"{{{next(iter(callers))!r}: (args, kwargs)}}"
        )
    caller = callers[name]
    found = []
    for args, kwargs in _pairs(given):
        try:
            refusal = caller.refusal_of(args, kwargs)
        except TypeError as error:
            raise OptionsError(f"check_inputs: {error}") from None
        if refusal is not None:
            raise refusal
        found.append(given_example(caller.call.contract, args, kwargs))
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
