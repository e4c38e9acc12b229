"""Pictures without a screen, and a remedy where there are none."""

import importlib.util
import os
import subprocess
import sys

import pytest

from pilot.sims import gl


def run(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *code.split(" ", 1)], capture_output=True, text=True, env=os.environ | env)


def test_this_machine_renders():
    gl.check()


def test_the_check_names_the_packages_to_install():
    result = run("-m pilot.sims.gl", MUJOCO_GL="nonsense")
    assert result.returncode == 1
    assert "libegl1" in result.stderr and "mesa-libEGL" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_mujoco_names_the_extra():
    result = run("-c import sys; sys.modules['mujoco'] = None; import pilot.sims.gl")
    assert "pip install 'pilot[sim]'" in result.stderr


def test_two_models_can_be_rendered_in_turn():
    xml = "<mujoco><worldbody><camera name='c' pos='0 0 1'/><geom size='.3' rgba='{}'/></worldbody></mujoco>"
    scenes = []
    for colour in ("1 0 0 1", "0 0 1 1"):
        model = gl.mujoco.MjModel.from_xml_string(xml.format(colour))
        data = gl.mujoco.MjData(model)
        gl.mujoco.mj_forward(model, data)
        scenes.append((gl.Renderer(model, 16), data))
    for _ in range(2):
        middles = [renderer.render(data, "c")[8, 8] for renderer, data in scenes]
        assert middles[0].argmax() == 0 and middles[1].argmax() == 2
    for renderer, _ in scenes:
        renderer.close()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_torch_can_load_triton_after_a_picture():
    """Triton and Mesa have an LLVM each: in the wrong order the process ends with a segmentation fault."""
    assert run("-c from pilot.sims import gl; gl.check(); import torch._dynamo").returncode == 0
