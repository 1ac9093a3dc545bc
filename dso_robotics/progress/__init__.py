"""What work tells while it runs: phases that report how far they are, and ways to show it. Imports no array library."""
