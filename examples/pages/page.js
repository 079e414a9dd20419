/*
 * The browser side of the examples: a panel with a WebSocket for each client.
 *
 * A page says which example it is (<body data-example="...">), and has one or
 * two <section class="client">. Each is filled from the page's templates and
 * becomes a Client. What differs from example to example is in examples.js;
 * how the server's messages look in the list is in LINES. Elements are found
 * by their data-role.
 */

import { EXAMPLES } from "./examples.js";

const FIRST_DELAY = 500; // ms: the longest first wait before reconnecting
const MAX_DELAY = 10_000; // ms: no wait is longer than this
const MAX_LINES = 200; // the message list forgets its oldest lines

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
class Client {
  constructor(section, example) {
    this.section = section;
    this.example = example;
    this.state = "disconnected";
    this.address = null; // where the socket connects, and reconnects
    this.socket = null;
    this.listeners = null; // an AbortController for the socket's listeners
    this.timer = null; // the reconnection countdown
    this.attempt = 0; // reconnections tried since the last welcome
    this.hasOpened = false; // since the person last asked to connect
    this.setUp();
  }

  part(role) {
    return this.section.querySelector(`[data-role="${role}"]`);
  }

  parts(role) {
    return this.section.querySelectorAll(`[data-role="${role}"]`);
  }

  setUp() {
    this.part("connect").addEventListener("click", () => this.connect());
    this.part("disconnect").addEventListener("click", () => this.disconnect());
    this.part("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.sendTyped();
    });
    // A page that is left may be kept for the "Back" button, but not its socket.
    addEventListener("pagehide", (event) => {
      if (event.persisted) this.letGo();
    });
    addEventListener("pageshow", (event) => {
      if (event.persisted && this.state !== "disconnected") this.open();
    });
    this.example.setUp?.(this);
    this.show("disconnected", this.example.idle ?? "Disconnected");
    if (this.example.connectsAlone) this.connect();
  }

  // -- what the person asks for

  connect() {
    const address = this.example.address(this);
    if (!address) return;
    if (this.state === "disconnected" || address !== this.address) {
      this.attempt = 0;
      this.hasOpened = false;
    }
    this.address = address;
    this.open();
  }

  disconnect() {
    const text = this.retries ? "You gave up reconnecting" : "You disconnected";
    this.letGo();
    this.show("disconnected", "Disconnected");
    this.addLine({ kind: "info", text });
  }

  sendTyped() {
    const input = this.part("input");
    const text = input.value;
    if (text.trim() === "" || this.socket?.readyState !== WebSocket.OPEN) return;
    if (this.example.submit) return this.example.submit(this, text);
    const { body, note } = this.example.compose(this, text);
    this.send(body);
    if (!this.example.repeats) this.addLine({ kind: "own", who: "You", text, note });
    input.value = "";
  }

  send(body) {
    this.socket.send(typeof body === "string" ? body : JSON.stringify(body));
  }

  /* Whether a lost connection is being opened again, or waits for that. */
  get retries() {
    return this.state === "lost" || (this.state === "connecting" && this.attempt > 0);
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

  // -- what the person sees

  show(state, text) {
    const list = this.part("messages");
    const follows = isAtEnd(list); // a longer status makes the list shorter
    this.state = state;
    const status = this.part("status");
    status.dataset.state = state;
    status.textContent = text;
    this.showButtons();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  showButtons() {
    const [connect, disconnect] = [this.part("connect"), this.part("disconnect")];
    const [send, login] = [this.part("send"), this.part("login")];
    const focused = document.activeElement; // before it may go away
    const address = this.example.address(this);
    const there = this.state !== "disconnected" && !this.retries && address === this.address;
    for (const element of this.section.querySelectorAll("[data-when]")) {
      element.hidden = (element.dataset.when === "connected") !== (this.state === "connected");
    }
    connect.hidden = connect.disabled = !address || there;
    connect.textContent = this.retries
      ? "Retry now"
      : (this.state === "connected" && this.example.moveLabel) || "Connect";
    disconnect.hidden = disconnect.disabled = this.state === "disconnected";
    disconnect.textContent = this.retries
      ? "Give up"
      : this.state === "connecting" ? "Cancel" : "Disconnect";
    send.disabled = this.state !== "connected";
    // One button at a time is the primary one: what a person most likely wants next.
    const logIn = login && !login.hidden && login.querySelector("button");
    const primary = connect.hidden ? logIn || send : connect;
    for (const button of this.section.querySelectorAll("button")) {
      button.classList.toggle("primary", button === primary);
    }
    // A control that goes away under the keyboard hands the focus on.
    if (this.section.contains(focused) && (focused.disabled || focused.closest("[hidden]"))) {
      const next = primary === send ? this.part("input") : primary;
      (this.state === "connecting" ? disconnect : next).focus();
    }
  }

  addLine(line) {
    const list = this.part("messages");
    const follows = isAtEnd(list);
    const item = lineElement(line);
    list.append(item);
    while (list.children.length > MAX_LINES) list.firstElementChild.remove();
    if (follows || line.kind === "own") list.scrollTop = list.scrollHeight;
    return item;
  }
}

function isAtEnd(list) {
  return list.scrollHeight - list.scrollTop - list.clientHeight < 40;
}

/* Full jitter: anywhere between no wait and a longest wait that doubles. */
function backOff(attempt) {
  return Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** (attempt - 1));
}

function lineElement({ kind, who, text, note, at }) {
  const date = Number.isNaN(Date.parse(at)) ? new Date() : new Date(at);
  const item = element("li");
  item.dataset.kind = kind;
  if (who) item.append(element("span", { className: "who", textContent: `${who}:` }), " ");
  item.append(element("span", { className: "text", textContent: text }), " ");
  if (note) item.append(element("span", { className: "note", textContent: note }), " ");
  const textContent = date.toLocaleTimeString([], { hourCycle: "h23" }); // short, wherever that is
  item.append(element("time", { dateTime: date.toISOString(), textContent }));
  return item;
}

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

/* Fill a section from the page's templates, then make it a Client. */
function makePanel(section, example) {
  section.append(contentOf("template[data-role='panel']"));
  for (const slot of section.querySelectorAll("slot")) {
    slot.replaceWith(contentOf(`template[data-slot="${slot.name}"]`));
  }
  const name = section.querySelector("[data-role='username'], [data-role='login-username']");
  if (name) name.value = section.dataset.username;
  section.querySelector("h2").textContent = section.getAttribute("aria-label");
  return new Client(section, example);
}

function contentOf(template) {
  return document.querySelector(template)?.content.cloneNode(true) ?? "";
}

for (const section of document.querySelectorAll(".client")) {
  makePanel(section, EXAMPLES[document.body.dataset.example]);
}
