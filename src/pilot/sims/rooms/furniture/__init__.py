"""Furniture of boxes and bars: each function adds one piece to a room and registers what it offers to tasks."""
