"""Cost building blocks of Section 5, one family a file."""
