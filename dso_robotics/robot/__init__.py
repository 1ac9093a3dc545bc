"""Sensors, policies, noise and correctors: what turns physics into a chain."""
