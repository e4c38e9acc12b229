"""Scripted experts for the benchmarks of others: they read the simulator's state, and say in words what they do."""
