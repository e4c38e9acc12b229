// Shows the views that `serve/live.py` sends. Everything that robots and people wrote becomes text, never markup.

import { $, Connection, draw, duration, make, note, renderList, setBadge, setText, showBox } from "./tools.js";

const SMALL = 128; // pictures below so many pixels are enlarged without smoothing

let chosen = null; // the robot that a person chose; null: the server chooses
let requested = null; // the robot that this connection asked the server to show
let view = null;
let ahead = 0; // how far the server's clock is ahead of ours, in seconds
const ranges = new Map(); // of all values so far, by dimension of the watched robot, so that plots do not jump

const now = () => Date.now() / 1000 + ahead;
const quoted = (words) => `“${words}”`;

// --- the connection to the server ------------------------------------------------------------------------------------

const connection = new Connection({ receive });

function receive(message) {
  if (message.kind === "view") {
    if (!connection.accepted) begin();
    if (view?.watched?.session !== message.watched?.session) resetRobot();
    view = message;
    ahead = message.time - Date.now() / 1000;
    show();
    requestRobot();
  } else if (message.kind === "key") {
    sendKey();
  } else if (message.kind === "done" && "stopped" in message) {
    note(message.stopped ? "Stopped." : "Released.");
  } else if (message.kind === "done") {
    note(message.command === null ? "The robot follows its own prompt." : `Command sent: ${quoted(message.command)}.`);
  } else if (message.kind === "error") {
    if (connection.accepted) note(message.error, true);
    else askAgain(message.error);
  }
}

function send(message) {
  if (!connection.send(message)) note("Not connected: the command was not sent.", true);
}

/** Begin with the first view. A server without API keys prints an address with a key, without which it obeys nobody. */
function begin() {
  connection.accept();
  requested = null;
  const key = sessionStorage.getItem("key");
  if (!connection.keyed && key !== null) send({ key });
}

/** Request the robot that a person chose, as long as it is there, and after a reconnection too. */
function requestRobot() {
  const wanted = view.robots.some((robot) => robot.session === chosen) ? chosen : null;
  if (wanted !== requested) send({ watch: (requested = wanted) });
}

/** Forget ranges and notes of the last robot. */
function resetRobot() {
  ranges.clear();
  note("");
}

/** Send the key that was entered before, or ask for one. */
function sendKey() {
  const key = sessionStorage.getItem("key");
  if (key !== null) return send({ key });
  askForKey();
}

function askForKey() {
  $("door").hidden = false;
  setBadge("locked", "");
  connection.close();
  $("key").focus();
}

function askAgain(words) {
  sessionStorage.removeItem("key");
  setText($("refused"), words);
  askForKey();
}

// --- input -----------------------------------------------------------------------------------------------------------

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value);
  $("key").value = "";
  $("door").hidden = true;
  setText($("refused"), "");
  connection.open();
});

$("command").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("words").value.trim();
  if (prompt === "" || view?.watched == null) return;
  send({ session: view.watched.session, prompt });
  $("words").value = "";
});

$("own").addEventListener("click", () => {
  send({ session: view.watched.session, prompt: null });
  $("words").focus();
});

$("stop").addEventListener("click", () => send({ session: view.watched.session, stop: true }));
$("stop-all").addEventListener("click", () => send({ stop: true }));
$("release").addEventListener("click", () => send({ session: view.watched.session, stop: false }));

$("robots").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button === null) return;
  chosen = button.parentElement.dataset.key;
  requestRobot();
});

// --- rendering -------------------------------------------------------------------------------------------------------

function show() {
  document.body.classList.remove("away");
  setBadge(view.ready ? "live" : "not ready", view.ready ? "good" : "");
  setText($("policies"), view.policies.map(describePolicy).join(", "));
  const robot = view.watched;
  $("nobody").hidden = view.robots.length > 0;
  $("choice").hidden = view.robots.length === 0;
  $("robot").hidden = $("past").hidden = robot === null;
  showRobots(view.robots, robot);
  if (robot === null) return;
  showWords(robot);
  showCameras(robot);
  showChunk(robot);
  showHistory(robot.history);
  showLatency(robot);
}

function describePolicy({ name, robot, robots, control_hz: hz }) {
  return [name, robot ?? robots?.join(", "), hz && `${hz} Hz`].filter(Boolean).join(" · ");
}

function showWords(robot) {
  const words = robot.command ?? robot.prompt;
  setText($("prompt"), words === null ? "" : robot.command === null ? words : `${words} (command)`);
  setText($("subtask"), robot.subtask ?? (robot.connected ? "acting" : "disconnected"));
  $("subtask").classList.toggle("silent", robot.subtask === null);
  $("words").placeholder = robot.prompt ?? "";
  $("own").hidden = robot.command === null;
  $("stop").disabled = robot.stopped !== null;
  $("stop-all").hidden = view.robots.length < 2;
  $("release").hidden = robot.stopped === null;
  setText($("stopped"), robot.stopped === null ? "" : `Stopped: ${robot.stopped}.`);
}

function showRobots(robots, watched) {
  renderList($("robots"), robots, {
    key: (robot) => robot.session,
    create: () => make("li", {}, make("button", { type: "button" }, make("i"), make("b"), make("code"), make("small"))),
    update: (item, robot) => {
      const button = item.firstElementChild;
      const [, name, id, words] = button.children;
      button.setAttribute("aria-pressed", robot.session === watched?.session);
      button.classList.toggle("here", robot.connected);
      setText(name, robot.robot ?? "robot");
      setText(id, robot.session);
      setText(words, robot.connected ? (robot.subtask ?? robot.prompt ?? "connected") : "disconnected");
    },
  });
}

function showCameras(robot) {
  const first = robot.main_camera ?? robot.cameras[0]?.name;
  renderList($("cameras"), robot.cameras, {
    create: () => make("figure", {}, make("div", { class: "screen" }, make("img")), make("figcaption")),
    update: (figure, camera) => {
      const [screen, caption] = figure.children;
      const image = screen.firstElementChild;
      image.src = `data:image/jpeg;base64,${camera.jpeg}`;
      image.width = camera.width;
      image.height = camera.height;
      image.alt = `What the camera ${camera.name} sees`;
      image.style.height = "auto";
      image.classList.toggle("small", camera.width < SMALL);
      setText(caption, camera.name);
      showBox(screen, camera.name === first ? robot.box : null, camera);
    },
  });
}

// --- plots: the chunk that was sent last, joined to what was done of the one before ----------------------------------

function showChunk(robot) {
  const chunk = robot.chunk;
  const dims = chunk?.actions[0]?.length ?? 0;
  const past = robot.before?.actions.slice(0, robot.before.executed) ?? [];
  renderList($("chunk"), Array.from({ length: dims }), {
    create: createPlot,
    update: (figure, _, dim) => {
      const name = robot.action_names[dim] ?? `action ${dim}`;
      const [gone, values] = [past, chunk.actions].map((actions) => actions.map((action) => action[dim]));
      updatePlot(figure, { name, range: updateRange(dim, [...gone, ...values]), past: gone, values, executed: chunk.executed });
    },
  });
  setText($("chunk-time"), dims === 0 ? "No chunk yet." : timing(chunk, robot.control_hz));
}

function timing(chunk, hz) {
  const length = chunk.actions.length;
  const done = `${chunk.executed} of ${length} actions executed`;
  return hz === null ? done : `${done}, ${((length - chunk.executed) / hz).toFixed(1)} s planned ahead`;
}

function createPlot() {
  const svg = draw("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
  svg.append(draw("rect", { x: 0, y: 0, height: 100 }), draw("line", { y1: 0, y2: 100 }));
  for (const part of ["before", "planned", "done"]) svg.append(draw("polyline", { class: part }));
  return make("figure", {}, svg, make("figcaption", {}, make("b"), make("span"), make("small")));
}

function updatePlot(figure, { name, range, past, values, executed }) {
  const [svg, caption] = figure.children;
  const last = past.length + values.length - 1;
  const x = (i) => (last === 0 ? 50 : (100 * i) / last);
  const y = (value) => 94 - (88 * (value - range.low)) / (range.high - range.low || 1);
  const line = (from, numbers) =>
    numbers.map((value, i) => (value === null ? "" : `${x(from + i).toFixed(2)},${y(value).toFixed(2)}`)).join(" ");
  const here = Math.min(executed, values.length - 1);
  const at = x(past.length + here);
  const [wash, cursor, before, planned, done] = svg.children;
  wash.setAttribute("width", at);
  cursor.setAttribute("x1", at);
  cursor.setAttribute("x2", at);
  before.setAttribute("points", line(0, [...past, values[0]]));
  done.setAttribute("points", line(past.length, values.slice(0, here + 1)));
  planned.setAttribute("points", line(past.length + here, values.slice(here)));
  const value = values[here];
  svg.setAttribute("aria-label", `${name}: now ${short(value)}, at the end of the chunk ${short(values.at(-1))}`);
  setText(caption.children[0], name);
  caption.children[0].title = name;
  setText(caption.children[1], short(value));
  setText(caption.children[2], `${short(range.low)} to ${short(range.high)}`);
}

const short = (value) => (Number.isFinite(value) ? value.toFixed(Math.abs(value) < 10 ? 3 : 1).replace("-", "−") : "–");

/** Extend the range of a dimension by new values, and return it. */
function updateRange(dim, values) {
  const range = ranges.get(dim) ?? { low: Infinity, high: -Infinity };
  for (const value of values) {
    if (value === null) continue;
    range.low = Math.min(range.low, value);
    range.high = Math.max(range.high, value);
  }
  ranges.set(dim, range);
  return range;
}

// --- history ---------------------------------------------------------------------------------------------------------

function showHistory(history) {
  const newest = [...history].reverse();
  renderList($("history"), newest, {
    create: () => make("li", {}, make("span"), make("small")),
    update: (item, { subtask, time }, i) => {
      setText(item.children[0], subtask);
      setText(item.children[1], i === 0 ? `since ${duration(now() - time)}` : `for ${duration(newest[i - 1].time - time)}`);
    },
  });
}

const PARTS = { total: "total", queue: "queue", infer: "model" };

function showLatency(robot) {
  const parts = Object.keys(PARTS).filter((part) => part in robot.latency_ms);
  renderList($("latency").tBodies[0], parts, {
    create: () => make("tr", {}, make("th", { scope: "row" }), make("td"), make("td"), make("td")),
    update: (row, part) => {
      const percentiles = robot.latency_ms[part];
      setText(row.children[0], PARTS[part]);
      ["p50", "p90", "p99"].forEach((p, i) => setText(row.children[i + 1], percentiles[p].toFixed(percentiles[p] < 10 ? 1 : 0)));
    },
  });
  const answers = robot.observations === 1 ? "1 observation" : `${robot.observations} observations`;
  const refused = robot.errors ? `, ${robot.errors} refused: ${robot.last_error}` : "";
  setText($("counts"), `ms in the server; ${answers}${refused}`);
}

const given = new URLSearchParams(location.hash.slice(1)).get("key");
if (given !== null) sessionStorage.setItem("key", given);
setText($("address"), new URL("/", location.href).href.replace("http", "ws"));
setInterval(() => view?.watched && showHistory(view.watched.history), 1000);
connection.open();
