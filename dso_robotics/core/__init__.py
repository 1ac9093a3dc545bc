"""The mathematics of DSO on any Markov chain. Knows no MuJoCo, no robot and no file."""
