"""The Python interface: functions that take paths or objects, and results that display themselves."""
