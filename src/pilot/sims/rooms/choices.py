"""What a suite of rooms can be told: rooms, and what only the test split has."""

ROOMS = ("kitchen", "bedroom", "living room")
NOVELTIES = ("kinds", "colours", "phrasings")
"""Kinds of things, colours and ways of asking that training never has."""
