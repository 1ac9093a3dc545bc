"""What a person types from memory: functions that take paths and objects, and results that show themselves."""
