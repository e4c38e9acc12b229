"""`pilot play` as a person meets it: the command, its address, and the page in a real browser."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve.browser import browse, chromium, wait_for

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on the path, and PILOT_CHROMIUM names none")

DESK, PHONE = (1280, 900), (390, 844)
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def served(out):
    """`pilot play` in a process of its own, as OpenGL and browsers like it; yields the address that it prints."""
    command = [sys.executable, "-m", "pilot", "play", "checkpoints/nano", "--suite", "homes-l2", "--scene", "3"]
    log = out / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--port", "0", "--out", str(out / "play")], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
    try:
        yield wait_for(lambda: re.search(r"http://\S+", log.read_text()) or process.poll(), "pilot play starts")[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(tmp_path_factory.mktemp("play")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with browse() as page:
        yield page


@pytest.fixture
def page(browser, address):
    browser.size(*DESK)
    browser.said.clear()
    browser.asked.clear()
    browser.open(address)
    browser.until("!document.getElementById('stage').hidden")
    yield browser
    if browser.value("document.getElementById('play')?.textContent") == "Pause":
        click(browser, "play")
    if browser.value("document.getElementById('take')?.textContent") == "Give back":
        click(browser, "take")
    browser.open("about:blank")


def click(page, name):
    page.value(f"document.getElementById({name!r}).click()")


def text(name):
    return f"document.getElementById({name!r}).textContent"


def press(page, code, kind):
    page.value(f"dispatchEvent(new KeyboardEvent({kind!r}, {{code: {code!r}, bubbles: true}}))")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_asks_nobody_else(page, size, dark, tmp_path):
    page.size(*size, dark=dark)
    click(page, "step")
    page.until("document.querySelector('#cameras .box') !== null")
    page.until("[...document.images].length === 2 && [...document.images].every((i) => i.complete)")
    assert page.value("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    assert page.value("location.hash") == "", "the key does not stay in the address"
    asked = [url for url in page.asked if not url.startswith("data:")]
    assert page.said == [] and asked and all("://localhost:" in url for url in asked), asked
    if folder := os.environ.get("PILOT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.picture(Path(folder) / f"play-{size[0]}-{'dark' if dark else 'light'}.png")


def test_a_person_talks_and_the_policy_answers(page):
    click(page, "again")
    page.value("document.getElementById('words').focus()")
    page.type("put the red block in the sink")
    page.press("Enter")
    page.until(text("prompt") + " === '“put the red block in the sink”'")
    page.until(text("subtask") + " === 'pick up the red block'")
    page.until("document.querySelector('#cameras svg .way')?.getAttribute('points').split(' ').length > 2")
    page.value("document.getElementById('words').focus()")
    page.type("put the yellow block in the bin")
    page.press("Enter")
    page.until(text("subtask") + " !== 'pick up the red block'")
    assert page.value("document.querySelectorAll('#history li').length") >= 2
    click(page, "play")
    page.until(text("play") + " === 'Play'")


def test_a_person_drives_with_keys_records_and_keeps(page):
    click(page, "again")
    click(page, "record")
    page.until(text("record") + " === 'Stop'")
    click(page, "take")
    page.until(text("driver") + " === 'you'")
    page.until("document.querySelectorAll('#pads li').length === 3")
    press(page, "KeyD", "keydown")
    page.until("document.querySelector('#pads li button:last-child').classList.contains('held')")
    page.until(f"parseInt({text('recording')}) > 5")
    press(page, "KeyD", "keyup")
    press(page, "Space", "keydown")
    page.until(text("grip") + " === 'Open the gripper'")
    page.until(f"parseInt({text('recording')}) > 12")
    click(page, "play")
    page.until(text("play") + " === 'Play'")
    click(page, "take")
    page.until(text("driver") + " === 'the policy'")
    click(page, "take")
    page.until(text("driver") + " === 'you'")
    press(page, "KeyD", "keydown")
    page.until("document.querySelector('#pads li button:last-child').classList.contains('held')")
    page.until("document.querySelector('#link').textContent === 'playing'")
    press(page, "KeyD", "keyup")
    assert page.value(text("grip")) == "Open the gripper", "who takes over holds what the robot holds"
    click(page, "play")
    page.until(text("play") + " === 'Play'")
    click(page, "take")
    page.until(text("driver") + " === 'the policy'")
    click(page, "record")
    page.until("!document.getElementById('keep').hidden")
    click(page, "keep")
    page.until(text("kept") + ".startsWith('1 episode in')")
    assert page.value(text("train")).startswith("pilot train ")
    assert not page.value("document.getElementById('finetune').disabled")


def test_without_the_key_the_page_asks_for_it(page, address):
    key = address.partition("#key=")[2]
    page.value("sessionStorage.clear()")
    page.open(address.partition("#")[0] + "?")
    page.until("!document.getElementById('door').hidden")
    page.value("document.getElementById('key').focus()")
    page.type("a-wrong-key")
    page.press("Enter")
    page.until(text("refused") + " !== ''")
    page.value("document.getElementById('key').focus()")
    page.type(key)
    page.press("Enter")
    page.until("!document.getElementById('stage').hidden")
