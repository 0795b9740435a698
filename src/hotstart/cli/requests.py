"""What each command can be asked for, and how flags say it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import msgspec

from hotstart.cli import parse
from hotstart.errors import OptionsError
from hotstart.options import CompilerName, MissPolicy, Prove
from hotstart.records.shapes import Dim


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What every command can be asked for."""

    json: bool = False
    traceback: bool = False


class CompileRequest(Request, frozen=True, kw_only=True):
    """How a command compiles; what a factory says goes before."""

    dynamic_shapes: dict[str, dict[int, Dim]] | None
    split_on: Literal["auto"] | tuple[str, ...]
    compiler: CompilerName
    on_miss: MissPolicy
    splits: int
    prove: Prove
    jobs: int | None


class BuildRequest(CompileRequest, frozen=True, kw_only=True):
    """What `hotstart build` was asked for."""

    factory: parse.Factory
    debug_dir: Path | None
    output: Path | None
    sign_key: Path | None
    check: bool


class InspectRequest(Request, frozen=True, kw_only=True):
    """What `hotstart inspect` was asked for."""

    file: Path


class VerifyRequest(Request, frozen=True, kw_only=True):
    """What `hotstart verify` was asked for; without keys, no signature is checked."""

    file: Path
    trusted_keys: tuple[str, ...] | None


class LoadCheckRequest(Request, frozen=True, kw_only=True):
    """What `hotstart load-check` was asked for."""

    file: Path
    compare_source: bool


class KeygenRequest(Request, frozen=True, kw_only=True):
    """What `hotstart keygen` was asked for."""

    file: Path


class CacheRequest(Request, frozen=True, kw_only=True):
    """What `hotstart cache` was asked for."""

    action: str
    folder: Path | None
    remote: str = ""
    key: str = ""
    max_bytes: int | None = None
    max_files: int | None = None
    max_age_days: float | None = None


class ExplainRequest(CompileRequest, frozen=True, kw_only=True):
    """What `hotstart explain` was asked for."""

    factory: parse.Factory
    folder: Path | None
    remote: str | None = None


class WarmRequest(CompileRequest, frozen=True, kw_only=True):
    """What `hotstart warm` was asked for."""

    factories: tuple[parse.Factory, ...]
    folder: Path | None
    check: bool
    remote: str | None = None


def request_of(given: argparse.Namespace) -> Request:
    """The request that parsed flags make.

    Raises:
        SystemExit: the flags do not go together.
    """
    match given.command:
        case "inspect":
            return InspectRequest(file=given.file, json=given.json, traceback=given.traceback)
        case "verify":
            return VerifyRequest(
                file=given.file,
                trusted_keys=tuple(given.trusted_key) if given.trusted_key else None,
                json=given.json,
                traceback=given.traceback,
            )
        case "load-check":
            return LoadCheckRequest(
                file=given.file,
                compare_source=not given.no_source,
                json=given.json,
                traceback=given.traceback,
            )
        case "keygen":
            return KeygenRequest(file=given.file, traceback=given.traceback)
        case "cache":
            return _cache_request(given)
        case "explain":
            return ExplainRequest(
                factory=given.factory,
                folder=given.cache,
                remote=given.remote,
                **_compiling(given),
            )
        case "warm":
            return WarmRequest(
                factories=tuple(given.factories),
                folder=given.cache,
                check=not given.no_check,
                remote=given.remote,
                **_compiling(given),
            )
    return _build_request(given)


def _cache_request(given: argparse.Namespace) -> CacheRequest:
    return CacheRequest(
        action=given.action,
        folder=given.cache,
        remote=getattr(given, "remote", ""),
        key=getattr(given, "key", ""),
        max_bytes=getattr(given, "max_bytes", None),
        max_files=getattr(given, "max_files", None),
        max_age_days=getattr(given, "max_age_days", None),
        json=given.json,
        traceback=given.traceback,
    )


def _build_request(given: argparse.Namespace) -> BuildRequest:
    usage: argparse.ArgumentParser = given.parser
    if given.output is None and (given.sign_key or given.no_check):
        usage.error(f"{'--sign-key' if given.sign_key else '--no-check'} is for --output")
    return BuildRequest(
        factory=given.factory,
        debug_dir=given.debug_dir,
        output=given.output,
        sign_key=given.sign_key,
        check=not given.no_check,
        **_compiling(given),
    )


def _compiling(given: argparse.Namespace) -> dict[str, Any]:
    try:
        shapes = parse.dynamic_shapes(given.dynamic, given.range, given.size)
    except OptionsError as error:
        usage: argparse.ArgumentParser = given.parser
        usage.error(str(error))
    return {
        "dynamic_shapes": shapes,
        "split_on": parse.split_rule(given.split_on),
        "compiler": given.compiler,
        "on_miss": given.on_miss,
        "splits": given.splits,
        "prove": given.prove,
        "jobs": given.jobs,
        "json": given.json,
        "traceback": given.traceback,
    }
