"""Methods of the one loop (`core.descent`), one file each."""
