"""Correctors that register themselves, one a file; see `robot.corrector`."""
