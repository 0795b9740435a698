"""The URL of a remote: what it may be, what of it is shown, and how obstore opens it."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hotstart.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RETRIES = 2
"""So often a request is sent again that failed in a way that may pass, while there is time."""

_HTTP = ("http", "https")
_SECRET = re.compile(r"\?[^\s\"')]*|(?<=//)[^\s/@]*@")
"""The query of a URL, and who asks."""
_ENVIRONMENT = {
    "s3": "AWS", "s3a": "AWS", "gs": "GOOGLE", "az": "AZURE", "azure": "AZURE", "abfs": "AZURE",
    "abfss": "AZURE", "adl": "AZURE", "http": "", "https": "", "file": "", "memory": "",
}  # fmt: skip
"""By scheme, how the variables begin that its settings come from."""


class RemoteUrl:
    """The URL of an object store, of a file server, or of a folder.

    Attributes:
        is_file_server: whether it can only be read by name: there is no writing and no listing.

    Raises:
        StoreError: it is no such URL, or the extra is not installed.
    """

    def __init__(self, url: str) -> None:
        self._scheme = _scheme(url)
        self._url = url
        self.is_file_server = self._scheme in _HTTP

    def __str__(self) -> str:
        parts = urlsplit(self._url)  # its user and its query may be secrets
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def open(self, timeout_s: float, given: Mapping[str, Any], writable: bool) -> ObjectStore:
        """The library's object for it; no request is sent for that.

        Args:
            timeout_s: seconds that a request may take. obstore's own limit is 30.
            given: settings, which go before all others.
            writable: whether a folder is made where there is none.

        Raises:
            Exception: whatever the library finds wrong with the settings.
        """
        from obstore.store import HTTPStore, from_url

        if self._scheme == "memory":
            return from_url(self._url)
        if self._scheme == "file":
            return from_url(self._url, mkdir=writable)
        options = dict(given)
        # Given settings of the client replace those of the environment, so that is read here.
        client = {
            "timeout": timedelta(seconds=timeout_s),
            "allow_http": self._allows_http(),
            **options.pop("client_options", {}),
        }
        retry = {"max_retries": RETRIES, **options.pop("retry_config", {})}
        make: Any = HTTPStore.from_url if self.is_file_server else from_url
        store: ObjectStore = make(self._url, client_options=client, retry_config=retry, **options)
        return store

    def _allows_http(self) -> bool:
        said = os.environ.get(f"{_ENVIRONMENT[self._scheme]}_ALLOW_HTTP", "")
        return self._scheme == "http" or said.lower() in ("1", "true", "t", "yes", "y", "on")


def without_secrets(text: str) -> str:
    """A text without what URLs in it say of who asks."""
    return _SECRET.sub("", text)


def _scheme(url: str) -> str:
    """The scheme of a URL, if all is as it should be."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreError(f"remote: expected a URL, found {url!r}: {error}") from error
    if parts.scheme not in _ENVIRONMENT:
        raise StoreError(
            "remote: expected a URL of one of "
            f"{', '.join(f'{scheme}://' for scheme in _ENVIRONMENT)}, found {url!r}"
        )
    local = parts.scheme in ("file", "memory")
    if bool(parts.netloc) == local or (parts.scheme == "file" and not parts.path.strip("/")):
        shape = "file:///folder" if local else f"{parts.scheme}://name/prefix"
        raise StoreError(f"remote: expected {shape}, found {url!r}")
    if importlib.util.find_spec("obstore") is None:
        raise StoreError(
            f"remote: expected the package obstore, found none, for {parts.scheme}://. Install it: "
            "pip install 'hotstart[remote]'"
        )
    return parts.scheme
