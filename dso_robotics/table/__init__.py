"""Tables of keys, from TOML files and from Python; see `table`."""

from dso_robotics.table.key import File, Key, Range, key, name_key
from dso_robotics.table.table import Study, Table, entries, keys, make, settle, words

__all__ = ["File", "Key", "Range", "Study", "Table", "entries", "key", "keys", "make", "name_key", "settle", "words"]
