"""Simulators. Each offers what `base` says; none of them imports torch."""
