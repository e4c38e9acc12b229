"""Measures of a policy on recorded data: nothing acts, and no simulator is needed.

`high_level` what it says to frames with subtasks; `actions` how far its chunks are from the recorded ones, what its
action tokens lose, and whether other words change what it does; `questions` what it answers about pictures.
"""
