"""What is asked in rooms, by name: one skill, one move, many steps, a whole room.

A `TaskKind` says whether it suits a room and a robot, and then draws itself: things, containers, goals and words.
"""

from pilot.sims.rooms.tasks import moves, skills, steps, whole
from pilot.sims.rooms.tasks.kind import TaskKind

TASKS: dict[str, TaskKind] = {kind.name: kind for module in (skills, moves, steps, whole) for kind in module.TASKS}

__all__ = ["TASKS", "TaskKind"]
