"""Dynamical System Optimization for robots, on MuJoCo and MJX.

Importing the package changes no global state and loads neither JAX nor MuJoCo: import the module you need.
"""

__version__ = "0.1.0"
