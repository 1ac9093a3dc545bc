"""Results of a run in the files of other programs: one file a format."""
