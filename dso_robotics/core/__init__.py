"""The mathematics of DSO on any Markov chain. This package does not depend on MuJoCo, robots or files."""
