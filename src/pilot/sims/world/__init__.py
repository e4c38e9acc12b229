"""The toolkit that worlds with robot bodies are built from: physics, bodies, kinematics, control, pictures, goals.

It knows no room, no laboratory and no task: `sims/rooms` and `sims/lab` draw scenes with it. Units are SI and radians,
z is up, and a robot's x axis points forwards.
"""
