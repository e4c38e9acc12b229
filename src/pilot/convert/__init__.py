"""Checkpoints of other projects, in and out: openpi's JAX and PyTorch, LeRobot's, PaliGemma's base weights."""
