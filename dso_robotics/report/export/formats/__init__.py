"""The formats of `dso export`, one a file; see `report.export.format`."""
