"""Where compiled programs are kept, so that they are compiled once."""

from hotstart.store.folder import Limits
from hotstart.store.programs import Store, open_store

__all__ = ["Limits", "Store", "open_store"]
