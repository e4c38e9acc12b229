"""The one door to MuJoCo: picks an off-screen OpenGL before MuJoCo is imported, and says what to install if none works.

`MUJOCO_GL` is honoured; else it is EGL where the machine has it, else OSMesa (which Mesa dropped in 25.1).
`python -m pilot.sims.gl` checks the machine. The libraries come from the system: no pip wheel was found that carries a
software OpenGL which MuJoCo can load, so this is the one thing that `pip install` cannot bring along.
"""

import ctypes
import importlib
import importlib.util
import os
import sys
from typing import Any

import numpy as np

REMEDY = """no off-screen OpenGL for MuJoCo ({why}). Install one of
  Debian, Ubuntu:  apt-get install libegl1 libgl1-mesa-dri      (or: libosmesa6, with MUJOCO_GL=osmesa)
  Fedora:          dnf install mesa-libEGL mesa-dri-drivers     (or: mesa-compat-libOSMesa, with MUJOCO_GL=osmesa)
and check with: python -m pilot.sims.gl"""


def _choose_backend() -> None:
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux":
        return
    without_egl = not _loads("libEGL.so.1") and (_loads("libOSMesa.so.8") or _loads("libOSMesa.so.6"))
    os.environ["MUJOCO_GL"] = "osmesa" if without_egl else "egl"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _load_triton() -> None:
    """Load Triton before Mesa, where it is installed.

    Each brings an LLVM of its own, and the process crashes if torch loads Triton (for an optimizer, say) after
    Mesa has rendered a picture.
    """
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")


def _import_mujoco() -> Any:
    """Import MuJoCo; the ImportError says which extra is missing, or what to do where there is no OpenGL."""
    # Pictures of 64 x 64 are too small to share: software GL's threads only steal cores from other processes.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    _choose_backend()
    _load_triton()
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name == "mujoco":
            raise ImportError("simulators need MuJoCo: pip install 'pilot[sim]'") from error
        raise
    except Exception as error:  # the GL loaders raise whatever they like: AttributeError, RuntimeError, OSError
        raise ImportError(REMEDY.format(why=error)) from error


try:
    mujoco = _import_mujoco()
except ImportError as error:
    if __name__ == "__main__":
        sys.exit(str(error))
    raise
_context: Any = None


def _gl_context() -> Any:
    """Return this process's GL context, made when first needed: that costs 0.2 s, a new model in it a few ms."""
    global _context
    if _context is None:
        try:
            _context = mujoco.GLContext(64, 64)
            _context.make_current()
        except Exception as error:
            _context = None
            raise RuntimeError(REMEDY.format(why=error)) from error
    return _context


class Renderer:
    """Square pictures of one model's cameras, without shadows, reflections or multisampling (10x faster so).

    `effects` brings those back, to draw pictures as a benchmark's own code does. `groups` are the groups of geoms that
    are drawn; None is MuJoCo's choice. OpenGL belongs to the thread that first rendered: render from that one only.
    """

    def __init__(
        self,
        model: Any,
        size: int,
        *,
        effects: bool = False,
        groups: tuple[int, ...] | None = None,
        max_geoms: int = 400,
    ):
        _gl_context().make_current()  # other libraries may have made theirs current since
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        if not effects:
            model.vis.quality.offsamples = 0
        self.model = model
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._gpu = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        self._scene = mujoco.MjvScene(model, maxgeom=max_geoms)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = effects
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = effects
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        if groups is not None:
            self._option.geomgroup[:] = [number in groups for number in range(len(self._option.geomgroup))]
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._pixels = np.empty((size, size, 3), np.uint8)

    def render(self, data: Any, camera: str) -> np.ndarray:
        """Render the picture of one named camera, uint8 [h w 3]."""
        _gl_context().make_current()
        # Each time: renderers share the context, and without this one would draw into another's buffer.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._gpu)
        self._camera.fixedcamid = self.model.camera(camera).id
        catbits = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, data, self._option, None, self._camera, catbits, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._gpu)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._gpu)
        return self._pixels[::-1].copy()  # OpenGL counts rows from the bottom

    def close(self) -> None:
        """Free the model's buffers."""
        self._gpu.free()


def check() -> None:
    """Render one picture.

    Raises:
        RuntimeError: that does not work; the message says what to install.
    """
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><light pos='0 0 2'/><camera name='c' pos='0 0 1'/><geom size='.2'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, 32)
    picture = renderer.render(data, "c")
    renderer.close()
    if picture.max() == 0:
        raise RuntimeError(REMEDY.format(why="pictures come out black"))


def main() -> int:
    """Check this machine, print the result, and return the exit code."""
    try:
        check()
    except RuntimeError as error:
        print(error)
        return 1
    print(f"OK: MuJoCo {mujoco.__version__} renders with MUJOCO_GL={os.environ.get('MUJOCO_GL', 'default')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
