"""MuJoCo made differentiable. Knows no policy and no cost."""
