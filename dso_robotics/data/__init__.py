"""Logs: the HDF5 contract, conversion, registry of recordings, synthetic recording."""
