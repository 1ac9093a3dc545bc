"""Logs: the HDF5 format, conversion, the registry of recordings, synthetic recordings."""
