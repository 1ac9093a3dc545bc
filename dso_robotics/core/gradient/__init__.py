"""Estimators of the gradient of J, each with its standard error: score, pathwise, mixed and bottleneck."""
