"""Homes with rooms in MuJoCo: kitchens, bedrooms and living rooms, drawn anew, for robots that drive or stand."""

from pilot.sims.rooms.suites import SUITES, RoomsSuite

__all__ = ["SUITES", "RoomsSuite"]
