"""What a user runs; each is short, the floors below do the work."""
