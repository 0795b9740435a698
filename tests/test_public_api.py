"""The names users may rely on."""

import hotstart


def test_the_public_names_are_pinned() -> None:
    assert hotstart.__all__ == [
        "ArtifactError",
        "Call",
        "CaptureError",
        "CompileError",
        "ContractError",
        "CorruptArtifact",
        "Dim",
        "HotstartError",
        "IncompatibleArtifact",
        "ModelMismatch",
        "Options",
        "OptionsError",
        "PartitionError",
        "Program",
        "RangeError",
        "Store",
        "StoreError",
        "UntrustedArtifact",
        "compile",
        "compile_submodule",
        "compute_key",
        "inspect",
        "install",
        "load",
        "restore",
    ]


def test_every_public_name_exists_and_is_listed() -> None:
    for name in hotstart.__all__:
        assert getattr(hotstart, name).__doc__
        assert name in dir(hotstart)


def test_every_error_is_a_hotstart_error() -> None:
    for name in hotstart.__all__:
        public = getattr(hotstart, name)
        if isinstance(public, type) and issubclass(public, Exception):
            assert issubclass(public, hotstart.HotstartError)
