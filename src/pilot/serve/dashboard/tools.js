// What the pages of pilot share: small tools to build and update a page without frameworks.

const SVG = "http://www.w3.org/2000/svg";
const FIRST_WAIT = 500, LONGEST_WAIT = 5000; // ms between attempts to reconnect
const WRONG_KEY = 4003; // the code with which a server closes when it does not know the key

export const $ = (id) => document.getElementById(id);

/** Set a text only if it has changed, so that a screen reader does not repeat it and no selection is lost. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Tell the person what has happened. */
export function note(words, wrong = false) {
  setText($("heard"), words);
  $("heard").classList.toggle("wrong", wrong);
}

/** Show how the page and the server stand. */
export function setBadge(words, kind) {
  setText($("link"), words);
  $("link").className = `badge ${kind}`;
}

/** The web socket beside this page. It is opened again when it closes, after ever longer waits. */
export class Connection {
  accepted = false; // whether this connection has sent a view
  keyed = false; // whether it has asked for a key
  #socket = null;
  #wait = FIRST_WAIT;

  /** `receive` takes each message; `refused` is called where the server closes because it does not know the key. */
  constructor({ receive, refused = () => {} }) {
    this.receive = receive;
    this.refused = refused;
  }

  open() {
    const url = new URL("live", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.accepted = this.keyed = false;
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.kind === "key") this.keyed = true;
      this.receive(message);
    };
    this.#socket.onclose = (event) => {
      if (event.code === WRONG_KEY) return this.refused();
      if (!$("door").hidden) return; // wait for a person to enter the key
      setBadge("disconnected", "bad");
      document.body.classList.add("away");
      setTimeout(() => this.open(), this.#wait);
      this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
    };
  }

  close() {
    this.#socket.close();
  }

  /** Note that the server sends views: the next attempt to reconnect comes soon again. */
  accept() {
    this.accepted = true;
    this.#wait = FIRST_WAIT;
  }

  /** Send a message; return whether there was a connection. */
  send(message) {
    const open = this.#socket.readyState === WebSocket.OPEN;
    if (open) this.#socket.send(JSON.stringify(message));
    return open;
  }
}

export function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export function draw(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** Update `parent` to one child per item; a child with the same key is kept, and with it the focus. */
export function renderList(parent, items, { key = (_, i) => i, create, update }) {
  const kept = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const nodes = items.map((item, i) => {
    const name = String(key(item, i));
    const node = kept.get(name) ?? parent.appendChild(create());
    node.dataset.key = name;
    update(node, item, i);
    return node;
  });
  for (const node of kept.values()) if (!nodes.includes(node)) node.remove();
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

/** The box of the subtask: (y0, x0, y1, x1) of the square that the model sees, in which the picture is centred. */
export function showBox(screen, box, { width, height }) {
  let frame = screen.querySelector(".box");
  if (box === null) return frame?.remove();
  if (frame === null) screen.append((frame = make("div", { class: "box" })));
  const side = Math.max(width, height);
  const along = (value, size) => `${(100 * (value * side - (side - size) / 2)) / size}%`;
  const across = (value, size) => `${(100 * value * side) / size}%`;
  frame.style.top = along(box[0], height);
  frame.style.left = along(box[1], width);
  frame.style.height = across(box[2] - box[0], height);
  frame.style.width = across(box[3] - box[1], width);
}
