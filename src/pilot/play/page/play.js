// The page of `pilot play`: shows the views of `play/player.py` and sends what a person does. What people and policies
// wrote becomes text, never markup.

import { $, Connection, draw, make, note, renderList, setBadge, setText, showBox } from "./tools.js";

const REPEAT = 150; // ms after which what is held is sent again: the server lets go of what nobody repeats
const DEAD_ZONE = 0.15; // of a gamepad's stick

/** The keys of axis 0, 1, …: one that pushes it by −1 and one by +1, as the code of the key and its label. */
const KEYS = [
  [["KeyA", "A"], ["KeyD", "D"]], [["KeyS", "S"], ["KeyW", "W"]], [["KeyQ", "Q"], ["KeyE", "E"]],
  [["ArrowRight", "→"], ["ArrowLeft", "←"]], [["ArrowDown", "↓"], ["ArrowUp", "↑"]], [["KeyL", "L"], ["KeyJ", "J"]],
  [["KeyK", "K"], ["KeyI", "I"]], [["KeyU", "U"], ["KeyO", "O"]], [["Comma", ","], ["Period", "."]],
];
/** The sticks of a gamepad for axis 0, 1, …: number and sign. */
const STICKS = [[0, 1], [1, -1], [3, -1], [2, -1]];

let view = null;
let gripOpen = true;
let drove = false; // whether a person drove in the last view
let sent = "{}"; // the axes that were sent last
let padGrip = false; // whether the gamepad's button was down
const pressed = new Map(); // by axis: −1, 0 or 1, from keys and from the page's own buttons

const quoted = (words) => `“${words}”`;

// --- the connection to the server ------------------------------------------------------------------------------------

if (location.hash.startsWith("#key=")) {
  sessionStorage.setItem("play-key", decodeURIComponent(location.hash.slice(5)));
  history.replaceState(null, "", location.pathname);
}

const connection = new Connection({ receive, refused: () => askForKey("This is not the key of this server.") });

function receive(message) {
  if (message.kind === "view") {
    connection.accept();
    view = message;
    show();
  } else if (message.kind === "key") {
    const key = sessionStorage.getItem("play-key");
    if (key === null) askForKey("");
    else connection.send({ key });
  } else if (message.kind === "done") {
    if (message.words) note(message.words);
  } else if (message.kind === "error") {
    note(message.error, true);
  }
}

function send(word, values = {}) {
  const sent = connection.accepted && connection.send({ do: word, ...values });
  if (!sent && word !== "steer") note("Not connected.", true);
}

function askForKey(words) {
  sessionStorage.removeItem("play-key");
  setText($("refused"), words);
  $("door").hidden = false;
  $("stage").hidden = $("side").hidden = true;
  setBadge("locked", "");
  connection.close();
  $("key").focus();
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("play-key", $("key").value);
  $("key").value = "";
  $("door").hidden = true;
  connection.open();
});

// --- what a person does ----------------------------------------------------------------------------------------------

$("command").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("words").value.trim();
  if (words === "") return;
  say(words);
  $("words").value = "";
});

function say(words) {
  send("say", { words });
  if (!view.playing) send("play");
}

$("ideas").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button !== null) say(button.textContent);
});

$("play").addEventListener("click", () => send(view.playing ? "pause" : "play"));
for (const word of ["step", "again", "new", "keep", "discard", "finetune", "swap"]) {
  $(word).addEventListener("click", () => send(word));
}
$("record").addEventListener("click", () => send(view.recording.on ? "stop" : "record"));
$("take").addEventListener("click", () => {
  if (view.driver === "person") return send("give");
  send("take");
  if (!view.playing) send("play");
  document.activeElement.blur(); // so that Space is the gripper, not this button
});
$("grip").addEventListener("click", toggleGrip);

function toggleGrip() {
  gripOpen = !gripOpen;
  steer(true);
}

/** Which axis a key pushes, and which way; null for other keys, and while a person types. */
function keyOf(event) {
  if (view?.driver !== "person" || event.ctrlKey || event.metaKey || event.altKey) return null;
  if (event.target.matches?.("input, textarea, select")) return null;
  const axis = KEYS.findIndex((pair) => pair.some(([code]) => code === event.code));
  if (axis < 0 || axis >= view.axes.length) return null;
  return { axis, push: KEYS[axis][1][0] === event.code ? 1 : -1 };
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea, select, button");
  if (event.code === "Space" && view?.driver === "person" && view.has_gripper && !typing && !event.repeat) {
    event.preventDefault();
    return toggleGrip();
  }
  const key = keyOf(event);
  if (key === null) return;
  event.preventDefault();
  pressed.set(key.axis, key.push);
  steer();
});

addEventListener("keyup", (event) => {
  const key = keyOf(event);
  if (key === null || pressed.get(key.axis) !== key.push) return;
  pressed.delete(key.axis);
  steer();
});

addEventListener("blur", () => {
  pressed.clear();
  steer();
});

/** The buttons of the page, for phones: held while a finger is on them. */
$("pads").addEventListener("pointerdown", (event) => {
  const button = event.target.closest("button");
  if (button === null) return;
  event.preventDefault();
  button.setPointerCapture(event.pointerId);
  pressed.set(Number(button.dataset.axis), Number(button.dataset.push));
  steer();
});
for (const end of ["pointerup", "pointercancel"]) {
  $("pads").addEventListener(end, (event) => {
    const button = event.target.closest("button");
    if (button === null) return;
    pressed.delete(Number(button.dataset.axis));
    steer();
  });
}

/** What is pushed now: keys and buttons, else the gamepad's sticks. */
function axes() {
  const pad = navigator.getGamepads?.().find((one) => one !== null);
  const pushed = {};
  view.axes.forEach((name, axis) => {
    const [number, sign] = STICKS[axis] ?? [];
    const stick = number === undefined ? 0 : sign * (pad?.axes[number] ?? 0);
    const value = pressed.get(axis) ?? (Math.abs(stick) > DEAD_ZONE ? Math.max(-1, Math.min(1, stick)) : 0);
    if (value !== 0) pushed[name] = Math.round(100 * value) / 100;
  });
  const button = pad?.buttons[0]?.pressed ?? false;
  if (button && !padGrip) gripOpen = !gripOpen;
  padGrip = button;
  return pushed;
}

/** Send what is held if it has changed, or is held on; `force`: in any case. */
function steer(force = false) {
  if (view?.driver !== "person") return;
  const grip = gripOpen;
  const held = axes();
  const text = JSON.stringify(held);
  if (force || grip !== gripOpen || text !== sent || text !== "{}") send("steer", { axes: held, open: gripOpen });
  sent = text;
  for (const button of $("pads").querySelectorAll("button")) {
    const value = held[view.axes[Number(button.dataset.axis)]] ?? 0;
    button.classList.toggle("held", Math.sign(value) === Number(button.dataset.push));
  }
}

setInterval(steer, REPEAT);

// --- rendering -------------------------------------------------------------------------------------------------------

function show() {
  document.body.classList.remove("away");
  setBadge(view.playing ? "playing" : "paused", view.playing ? "good" : "");
  $("stage").hidden = $("side").hidden = false;
  setText($("policies"), `${view.policy} · ${view.robot} · ${view.suite.title} (${view.suite.name})`);
  setText($("prompt"), quoted(view.instruction));
  const thinks = view.subtask ?? (view.driver === "person" ? "you drive" : "ready");
  setText($("subtask"), view.success ? "Done." : thinks);
  $("subtask").classList.toggle("silent", view.subtask === null);
  setText($("note"), view.note ?? view.trouble ?? "");
  setText($("clock"), clock());
  setText($("play"), view.playing ? "Pause" : "Play");
  setText($("new"), `New ${view.suite.scene}`);
  showIdeas();
  showCameras();
  showDriver();
  showRecording();
  showLearning();
  showHistory();
  showPlan();
}

function clock() {
  const goals = view.targets > 1 ? `, ${view.placed} of ${view.targets} done` : "";
  return `${view.suite.scene} ${view.scene}, ${view.seconds.toFixed(1)} s${goals}`;
}

function showIdeas() {
  renderList($("ideas"), view.suggestions, {
    key: (words) => words,
    create: () => make("li", {}, make("button", { type: "button" })),
    update: (item, words) => {
      setText(item.firstElementChild, words);
      item.firstElementChild.setAttribute("aria-pressed", words === view.instruction);
    },
  });
  renderList($("suggestions"), view.suggestions, {
    key: (words) => words,
    create: () => make("option"),
    update: (option, words) => option.setAttribute("value", words),
  });
}

function showCameras() {
  renderList($("cameras"), view.cameras, {
    key: (camera) => camera.name,
    create: () => make("figure", {}, make("div", { class: "screen" }, make("img")), make("figcaption")),
    update: (figure, camera, i) => {
      const [screen, caption] = figure.children;
      const image = screen.firstElementChild;
      image.src = `data:image/jpeg;base64,${camera.jpeg}`;
      image.width = camera.width;
      image.height = camera.height;
      image.style.height = "auto";
      image.alt = `What the camera ${camera.name} sees`;
      setText(caption, camera.name);
      showBox(screen, i === 0 ? view.box : null, camera);
      showPath(screen, i === 0 ? view.plan.path : []);
    },
  });
}

/** The planned motion of the hand, drawn into the picture. */
function showPath(screen, path) {
  let svg = screen.querySelector("svg");
  if (path.length < 2) return svg?.remove();
  if (svg === null) {
    svg = draw("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(draw("polyline", { class: "edge" }), draw("polyline", { class: "way" }));
    screen.append(svg);
  }
  const points = path.map(([y, x]) => `${x},${y}`).join(" ");
  for (const line of svg.children) line.setAttribute("points", points);
}

function showDriver() {
  const person = view.driver === "person";
  if (!person || !drove) gripOpen = view.open; // who takes over holds what the robot holds
  drove = person;
  setText($("driver"), person ? "you" : "the policy");
  setText($("take"), person ? "Give back" : "Take over");
  $("grip").hidden = !person || !view.has_gripper;
  setText($("grip"), view.open ? "Close the gripper" : "Open the gripper");
  $("how").hidden = $("pads").hidden = !person;
  renderList($("pads"), person ? view.axes.slice(0, KEYS.length) : [], {
    key: (name) => name,
    create: () => make("li", {}, make("button", { type: "button" }), make("span"), make("button", { type: "button" })),
    update: (item, name, axis) => {
      const [less, words, more] = item.children;
      [[less, 0, -1], [more, 1, 1]].forEach(([button, side, push]) => {
        button.dataset.axis = axis;
        button.dataset.push = push;
        setText(button, KEYS[axis][side][1]);
        button.setAttribute("aria-label", `${name}, ${push < 0 ? "less" : "more"}`);
      });
      setText(words, name);
    },
  });
}

function showRecording() {
  const { on, frames, episodes, path } = view.recording;
  setText($("recording"), on ? `${frames} frames` : "");
  $("recording").classList.toggle("bad", on);
  setText($("record"), on ? "Stop" : "Record");
  $("keep").hidden = $("discard").hidden = on || frames === 0;
  const waiting = !on && frames > 0 ? `${frames} frames are recorded. ` : "";
  const kept = episodes === 1 ? "1 episode" : `${episodes} episodes`;
  setText($("kept"), `${waiting}${episodes > 0 ? `${kept} in ${path}` : "Nothing is kept yet."}`);
}

function showLearning() {
  const { command, state, line, policy } = view.finetuning;
  setText($("learning"), { ready: "", running: "learning", failed: "failed", done: "learned" }[state]);
  $("learning").className = `badge ${{ running: "good", failed: "bad", done: "good" }[state] ?? ""}`;
  setText($("train"), command);
  $("finetune").disabled = state === "running" || view.recording.episodes === 0;
  $("swap").hidden = policy === null;
  setText($("progress"), policy === null ? line : `${policy} is ready: pilot play ${policy}`);
}

function showHistory() {
  const newest = [...view.history].reverse();
  renderList($("history"), newest, {
    create: () => make("li", {}, make("span"), make("small")),
    update: (item, { subtask, seconds }) => {
      setText(item.children[0], subtask);
      setText(item.children[1], `at ${seconds.toFixed(1)} s`);
    },
  });
}

function showPlan() {
  const { names, actions, executed } = view.plan;
  renderList($("chunk"), actions.length === 0 ? [] : names, {
    key: (name) => name,
    create: () => {
      const svg = draw("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
      svg.append(draw("polyline", { class: "planned" }), draw("polyline", { class: "done" }));
      return make("figure", {}, svg, make("figcaption", {}, make("b"), make("span")));
    },
    update: (figure, name, dim) => {
      const values = actions.map((action) => action[dim]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = Math.max(high - low, 0.02);
      const x = (i) => (values.length === 1 ? 50 : (100 * i) / (values.length - 1));
      const y = (value) => 94 - (88 * (value - low)) / room;
      const line = (from, to) => values.slice(from, to).map((value, i) => `${x(from + i)},${y(value)}`).join(" ");
      const [svg, caption] = figure.children;
      svg.children[0].setAttribute("points", line(Math.max(executed - 1, 0)));
      svg.children[1].setAttribute("points", line(0, executed));
      svg.setAttribute("aria-label", `${name}: from ${values[0]} to ${values.at(-1)}`);
      setText(caption.children[0], name);
      setText(caption.children[1], values.at(-1).toFixed(2).replace("-", "−"));
    },
  });
}

connection.open();
