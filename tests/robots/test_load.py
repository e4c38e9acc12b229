"""Robots are found by the name of their file."""

import pytest

from pilot.robots import load_robot, robot_names


def test_the_folder_is_the_list():
    assert "homes" in robot_names()
    assert load_robot("homes").action_names == ("x", "y", "z", "suction")


def test_an_unknown_robot_gets_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'homes'"):
        load_robot("home")
