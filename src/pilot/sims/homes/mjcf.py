"""Writes a home as one MJCF string.

Collision geoms are in group 3, which is not drawn; visual geoms collide with nothing. Objects touch
everything (contype 1, conaffinity 3); the pad (contype 2) touches objects only, so suction never grips the furniture.
"""

import numpy as np

from pilot.sims.homes.objects import SHAPES, VESSELS, Primitive
from pilot.sims.homes.rooms import Home, Receptacle

PAD = 0.018  # half width of the suction pad [m]
LIMITS = np.array([[-0.32, -0.27, 0.012], [0.32, 0.27, 0.36]])  # where the pad can go [m]
SUBSTEPS = 15  # physics steps per control step; at 10 the contacts under suction start to chatter
_TOUCH = 'contype="1" conaffinity="1"'
# Nobody sees it: what is knocked about stays where the pad can reach it.
_FENCE = [((-0.35, 0, 0), "1 0 0"), ((0.35, 0, 0), "-1 0 0"), ((0, -0.3, 0), "0 1 0"), ((0, 0.3, 0), "0 -1 0")]
_WALL = 0.005  # half thickness of a receptacle's wall [m]


def home_xml(home: Home) -> str:
    """Return the whole model as XML: room, table, receptacles, objects `item0`…, and the gantry."""
    receptacles = "".join(_receptacle(r) for r in home.receptacles)
    items = "".join(_item(i, kind, scale) for i, (kind, scale) in enumerate(home.pool))
    return f"""<mujoco model="home">
<option timestep="{0.1 / SUBSTEPS:.8f}" integrator="implicitfast" jacobian="dense" iterations="20" ls_iterations="10"/>
<visual>
  <quality shadowsize="0" offsamples="0" numslices="16" numstacks="8" numquads="2"/>
  <headlight ambient="{home.ambient} {home.ambient} {home.ambient}" diffuse=".25 .25 .25" specular="0 0 0"/>
  <map znear="0.02" zfar="6"/>
</visual>
<statistic extent="1" center="0 0 0"/>
<default>
  <default class="visual"><geom contype="0" conaffinity="0" group="1" mass="0"/></default>
  <default class="collision"><geom group="3" condim="3" friction="0.9 0.02 0.001" solref="0.014 1"/></default>
</default>
<asset>
  <texture name="table" type="2d" builtin="{home.table_texture}" width="64" height="64"
    rgb1="{_row(home.table)}" rgb2="{_row(home.table_second)}"/>
  <material name="table" texture="table" texrepeat="4 3" specular="0.1"/>
  <texture name="weave" type="2d" builtin="checker" width="64" height="64" rgb1=".72 .50 .28" rgb2=".46 .29 .13"/>
  <material name="weave" texture="weave" texrepeat="8 4" specular="0"/>
</asset>
<worldbody>
  <light pos="{_row(home.light)}" dir="{_row(-np.array(home.light))}" diffuse=".55 .55 .55" specular=".2 .2 .2"/>
  {_GANTRY}{_room(home)}{receptacles}{items}
</worldbody>
<actuator>
  <position name="x" joint="x" kp="3200" kv="80" forcerange="-40 40"/>
  <position name="y" joint="y" kp="3200" kv="80" forcerange="-40 40"/>
  <position name="z" joint="z" kp="3200" kv="80" forcerange="-15 15"/>
  <adhesion name="suction" body="gripper" ctrlrange="0 1" gain="40"/>
</actuator>
</mujoco>"""


def _row(values) -> str:
    return " ".join(f"{v:.5g}" for v in values)


def _geom(shape: str, size, pos, *, rgb=None, cls: str = "visual", more: str = "") -> str:
    colour = "" if rgb is None else f' rgba="{_row(rgb)} 1"'
    return f'<geom class="{cls}" type="{shape}" size="{_row(size)}" pos="{_row(pos)}"{colour} {more}/>\n'


def _room(home: Home) -> str:
    camera, target = np.array(home.camera), np.array(home.camera_target)
    back = (camera - target) / np.linalg.norm(camera - target)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    axes = _row([*right, *np.cross(back, right)])
    return (
        f'<camera name="room" pos="{_row(camera)}" xyaxes="{axes}" fovy="39"/>\n'
        + _geom("plane", (2, 2, 0.5), (0, 0, 0), cls="collision", more=_TOUCH)
        + "".join(
            _geom("plane", (1, 1, 1), pos, cls="collision", more=f'zaxis="{axis}" {_TOUCH}') for pos, axis in _FENCE
        )
        + _geom("box", (*home.table_half, 0.02), (0, 0, -0.02), more='material="table"')
        + _geom("box", (2, 1, 0.02), (0, 0.2, -0.3), rgb=home.floor)
        + _geom("box", (2, 0.02, 1), (0, 0.41, 0.4), rgb=home.wall)
        + "".join(_geom(d.shape, d.size, d.pos, rgb=d.rgb) for d in home.decor)
    )


def _receptacle(r: Receptacle) -> str:
    """Write a receptacle: a floor and four walls that collide, and the same four walls decorated."""
    w, d = r.inner
    t, h = _WALL, r.wall / 2
    walls = [((w + 2 * t, t, h), (0, s * (d + t), h)) for s in (-1, 1)]
    walls += [((t, d, h), (s * (w + t), 0, h)) for s in (-1, 1)]
    collision = _geom("box", (w, d, 0.003), (0, 0, 0.003), cls="collision", more=_TOUCH)
    collision += "".join(_geom("box", size, pos, cls="collision", more=_TOUCH) for size, pos in walls)
    pose = f'pos="{_row([*r.pos, 0])}" euler="0 0 {np.degrees(r.yaw):.4f}"'
    return f'<body name="{r.name}" {pose}>\n{collision}{_decorate(r, walls)}</body>\n'


def _decorate(r: Receptacle, walls: list) -> str:
    """Return the visible parts of a receptacle: its walls, its rim, and the detail that tells it from the others."""
    w, d = r.inner
    decoration = VESSELS[r.name].decoration
    weave = 'material="weave"' if decoration == "weave" else ""
    paint = None if weave else r.rgb
    inside = np.array(r.rgb) * 0.8
    out = _geom("box", (w, d, 0.0035), (0, 0, 0.0035), rgb=None if weave else inside, more=weave)
    if decoration == "slats":
        levels = np.linspace(0.2, 0.85, 3) * r.wall
        out += "".join(_geom("box", (*s[:2], 0.005), (*p[:2], z), rgb=r.rgb) for s, p in walls for z in levels)
    else:
        out += "".join(_geom("box", s, p, rgb=paint, more=weave) for s, p in walls)
    out += "".join(_geom("box", (s[0] + 0.003, s[1] + 0.003, 0.003), (*p[:2], r.wall), rgb=r.rim) for s, p in walls)
    if decoration == "tap":
        out += _geom("cylinder", (0.022, 0.001), (0, 0, 0.008), rgb=(0.15, 0.16, 0.18))
        out += _geom("box", (0.010, 0.010, 0.035), (0, d + 0.022, 0.035), rgb=(0.92, 0.94, 0.96))
        out += _geom("box", (0.008, 0.024, 0.007), (0, d, 0.068), rgb=(0.92, 0.94, 0.96))
    if decoration == "handles":
        out += "".join(_geom("box", (0.008, 0.03, 0.006), (s * (w + 0.016), 0, 0.012), rgb=r.rim) for s in (-1, 1))
    return out


def _item(index: int, kind: str, scale: float) -> str:
    """Return a free body; its geoms are named `item<index>.<number>.<shade>`, so that an episode can paint them."""
    shape = SHAPES[kind]
    x, y, height = np.array(shape.collision) * scale
    collision = _geom(
        "box",
        (x, y, height / 2),
        (0, 0, height / 2),
        cls="collision",
        more=f'name="item{index}" mass="0.12" contype="1" conaffinity="3"',
    )
    parts = "".join(_part(part, scale, f"item{index}.{n}.{part.shade}") for n, part in enumerate(shape.visual))
    return f'<body name="item{index}" pos="{index} 0 20"><freejoint/>\n{collision}{parts}</body>\n'


def _part(part: Primitive, scale: float, name: str) -> str:
    return _geom(part.shape, np.array(part.size) * scale, np.array(part.pos) * scale, more=f'name="{name}"')


_GANTRY = f"""
<body name="gripper" gravcomp="1">
  <joint name="x" type="slide" axis="1 0 0" range="{LIMITS[0, 0]} {LIMITS[1, 0]}"/>
  <joint name="y" type="slide" axis="0 1 0" range="{LIMITS[0, 1]} {LIMITS[1, 1]}"/>
  <joint name="z" type="slide" axis="0 0 1" range="0 {LIMITS[1, 2]}"/>
  <camera name="wrist" pos="0 -0.075 0.11" euler="12 0 0" fovy="78"/>
  <geom name="pad" class="collision" type="box" size="{PAD} {PAD} .005" pos="0 0 .005" mass="0.5"
    contype="2" conaffinity="0" friction="1.5 0.05 0.001"/>
  <geom class="visual" type="cylinder" size="{PAD} .006" pos="0 0 .006" rgba=".10 .10 .11 1"/>
  <geom class="visual" type="cylinder" size=".013 .012" pos="0 0 .024" rgba=".95 .95 .97 1"/>
  <geom class="visual" type="cylinder" size=".006 .4" pos="0 0 .43" rgba=".55 .57 .60 1"/>
</body>"""
