/*
 * The browser side of the examples: a panel with a WebSocket for each client.
 *
 * A page says which example it is (<body data-example="...">), and has one or
 * two <section class="client">. Each is filled from the page's templates and
 * becomes a Client: a Panel (in panel.js) with a WebSocket. What differs from
 * example to example is in examples.js; how the server's messages look in the
 * list is in LINES.
 */

import { EXAMPLES } from "./examples.js";
import { Panel } from "./panel.js";

const FIRST_DELAY = 500; // ms: the longest first wait before reconnecting
const MAX_DELAY = 10_000; // ms: no wait is longer than this

const CLOSE_NAMES = {
  1000: "closed by the server",
  1001: "server going away",
  1006: "no connection",
  1012: "server restarting",
};

/* For each message type, the line it makes: {who, text, note, at}. */
const LINES = {
  welcome: (m) => ({ text: welcomeText(m) + headCount(m) }),
  system: (m) => ({ text: m.message + headCount(m) }),
  error: (m) => ({ text: `Error: ${m.message}` }),
  echo: (m) => ({ who: "Echo", text: JSON.stringify(m.data) }),
  message: (m) => ({ who: m.sender ?? m.fromUsername, text: m.text, at: m.timestamp }),
  direct: (m) => ({ who: m.fromUsername, text: m.text, note: "to you alone", at: m.timestamp }),
  sent: (m) => ({ text: `Delivered to user ${m.to}: ${m.text}`, at: m.timestamp }),
};

function welcomeText({ message, room, ...rest }) {
  if (room !== undefined) return `Welcome to room "${room}"`;
  return message ?? `Welcome: ${JSON.stringify(rest)}`;
}

function headCount(message) {
  return message.userCount === undefined ? "" : ` (${message.userCount} here)`;
}

function parse(frame) {
  try {
    return JSON.parse(frame) ?? {};
  } catch {
    return {}; // not JSON: no type, so it is shown as it came
  }
}

/* A panel and its WebSocket: connects, reconnects, sends, and shows it all. */
class Client extends Panel {
  socket = null;
  listeners = null; // an AbortController for the socket's listeners
  timer = null; // the reconnection countdown

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  submit(text) {
    if (this.example.submit) return this.example.submit(this, text);
    const { body, note } = this.example.compose(this, text);
    this.send(body);
    if (!this.example.repeats) this.addLine({ kind: "own", who: "You", text, note });
    this.part("input").value = "";
  }

  send(body) {
    this.socket.send(typeof body === "string" ? body : JSON.stringify(body));
  }

  // -- the socket's life

  open() {
    this.letGo();
    this.show("connecting", this.attempt ? `Connecting, attempt ${this.attempt}` : "Connecting");
    this.socket = new WebSocket(this.address);
    this.listeners = new AbortController();
    const listen = (type, listener) =>
      this.socket.addEventListener(type, listener, { signal: this.listeners.signal });
    listen("open", () => {
      this.hasOpened = true;
      this.example.opened?.(this);
      this.show("connected", "Connected");
      if (!this.example.greets) this.welcomed({});
    });
    listen("message", (event) => this.received(event.data));
    listen("close", (event) => this.closed(event));
  }

  /* Close the socket, if any, and hear no more of it. */
  letGo() {
    clearTimeout(this.timer);
    this.listeners?.abort();
    const socket = this.socket;
    this.socket = null;
    if (socket?.readyState === WebSocket.CONNECTING) {
      // Closing it now would put an error on the console.
      socket.addEventListener("open", () => socket.close(1000));
    } else {
      socket?.close(1000);
    }
  }

  received(frame) {
    const message = parse(frame);
    if (message.type === "welcome") this.welcomed(message);
    const handler = this.example.handlers?.[message.type];
    const line = Object.hasOwn(LINES, message.type) && LINES[message.type];
    if (handler) handler(this, message);
    else if (line) this.addLine({ kind: message.type, ...line(message) });
    else this.addLine({ kind: "received", text: `Received: ${frame}` });
  }

  welcomed({ room, user }) {
    const again = `Reconnected at attempt ${this.attempt}`;
    if (this.attempt > 0) this.addLine({ kind: "info", text: again });
    this.attempt = 0;
    if (room) this.show("connected", `Connected to ${room}`);
    if (user) this.show("connected", `Connected as ${user.username} (user ${user.id})`);
  }

  closed({ code, reason }) {
    const why = `${code} ${reason || CLOSE_NAMES[code] || ""}`.trim();
    const final = this.example.giveUp?.(this, { code, reason });
    if (final) {
      this.show("disconnected", `Disconnected (${why}). ${final}`);
      this.addLine({ kind: "error", text: final });
      return;
    }
    if (this.attempt === 0) {
      const what = this.hasOpened ? "Connection lost" : "Could not connect";
      const hint = this.example.lossHint ? ` ${this.example.lossHint}` : "";
      this.addLine({ kind: "info", text: `${what} (${why}).${hint}` });
    }
    this.attempt += 1;
    this.countDown(why, performance.now() + backOff(this.attempt));
  }

  countDown(why, due) {
    const left = due - performance.now();
    if (left <= 0) return this.open();
    const seconds = Math.ceil(left / 1000);
    this.show("lost", `Lost (${why}). Reconnecting in ${seconds} s, attempt ${this.attempt}`);
    this.timer = setTimeout(() => this.countDown(why, due), Math.min(left, 1000));
  }
}

/* Full jitter: anywhere between no wait and a longest wait that doubles. */
function backOff(attempt) {
  return Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** (attempt - 1));
}

/* Fill a section from the page's templates, then make it a panel. */
function makePanel(section, example) {
  section.append(contentOf("template[data-role='panel']"));
  for (const slot of section.querySelectorAll("slot")) {
    slot.replaceWith(contentOf(`template[data-slot="${slot.name}"]`));
  }
  const name = section.querySelector("[data-role='username'], [data-role='login-username']");
  if (name) name.value = section.dataset.username;
  section.querySelector("h2").textContent = section.getAttribute("aria-label");
  const Kind = example.Client ?? Client;
  new Kind(section, example).setUp();
}

function contentOf(template) {
  return document.querySelector(template)?.content.cloneNode(true) ?? "";
}

for (const section of document.querySelectorAll(".client")) {
  makePanel(section, EXAMPLES[document.body.dataset.example]);
}
