/*
 * The browser side of verbtrio's five samples: one module for every page.
 *
 * A page says which sample it is (<body data-sample="...">), has a <template>
 * with the inside of a client panel, and one or two <section class="client">.
 * Each section becomes a Client: a panel with its own WebSocket. What differs
 * from sample to sample is in SAMPLES; how the server's messages look in the
 * list is in LINES. Elements are found by their data-role.
 */

const FIRST_DELAY = 500; // ms: the longest first wait before reconnecting
const MAX_DELAY = 10_000; // ms: no wait is longer than this
const MAX_LINES = 200; // the message list forgets its oldest lines

const CLOSE_NAMES = {
  1000: "closed by the server",
  1001: "server going away",
  1006: "no connection",
  1012: "server restarting",
};

/*
 * What a sample consists of (PLAIN is what most of them have in common):
 *
 * address(client)         where to connect, or null while that is not known
 * compose(client, text)   what to send for a typed text: {body, note}, where a
 *                         string body goes out as it is and the rest as JSON
 * connectsAlone           connect when the page loads
 * setUp(client)           anything to do once, when the panel is made
 * handlers[type](client)  a message type that is more than a line in the list
 * giveUp(client, event)   after a lost connection: a reason not to reconnect
 * lossHint                a sentence added to the "connection lost" line
 */
const PLAIN = {
  connectsAlone: true,
  address: () => socketAddress("ws"),
  compose: (client, text) => ({ body: { type: "message", text } }),
};

const SAMPLES = {
  echo: {
    ...PLAIN,
    compose: (client, text) =>
      client.part("raw").checked
        ? { body: text, note: "as raw text" }
        : PLAIN.compose(client, text),
  },

  broadcast: { ...PLAIN, compose: composeChat },

  heartbeat: { ...PLAIN, handlers: { ping: answerPing } },

  rooms: {
    ...PLAIN,
    address: roomAddress,
    compose: composeChat,
    setUp(client) {
      // Another room name is somewhere else to connect to: offer "Connect".
      const room = client.part("room");
      room.addEventListener("input", () => client.showButtons());
      room.addEventListener("keydown", (event) => {
        if (event.key === "Enter") client.part("connect").click();
      });
    },
  },

  auth: {
    address: (client) => client.token && socketAddress("ws", { token: client.token }),
    compose(client, text) {
      const to = client.part("to").valueAsNumber;
      return Number.isNaN(to)
        ? { ...PLAIN.compose(client, text), note: "to everyone" }
        : { body: { type: "direct", to, text }, note: `to user ${to}` };
    },
    setUp(client) {
      client.part("login").addEventListener("submit", (event) => {
        event.preventDefault();
        logIn(client);
      });
    },
    giveUp(client, event) {
      if (event.code === 4401) {
        client.token = null;
        return "The token has expired: please log in again.";
      }
      return client.hasOpened ? null : "The server refused the connection: please log in again.";
    },
    lossHint: "If it does not come back, log in again: the token may be too old.",
  },
};

function socketAddress(path, query = {}) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams(query);
  return url.href;
}

function roomAddress(client) {
  const room = client.part("room").value.trim();
  // A URL cannot end in "." or "..", nor is "/" one name: however encoded, these mean folders.
  const usable = room !== "" && room !== "." && room !== ".." && !room.includes("/");
  return usable ? socketAddress(`ws/${encodeURIComponent(room)}`) : null;
}

function composeChat(client, text) {
  const username = client.part("username").value.trim();
  return { body: { type: "message", username, text } };
}

async function logIn(client) {
  const username = client.part("login-username").value;
  const password = client.part("login-password").value;
  const { token, error } = await post("login", { username, password });
  if (token) {
    client.token = token; // in memory only: gone with the page
    client.connect();
  } else {
    client.addLine({ kind: "error", text: `Log-in failed: ${error}` });
  }
}

async function post(path, data) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(data);
  try {
    const response = await fetch(new URL(path, location.href), { method: "POST", headers, body });
    return (await response.json()) ?? {};
  } catch {
    return { error: "the server gave no usable answer" };
  }
}

function answerPing(client) {
  const answers = client.part("answer-pings").checked;
  if (answers) client.send({ type: "pong" });
  client.pingsAnswered += answers ? 1 : 0;
  const outcome = answers ? "answered" : "not answered";
  const time = new Date().toLocaleTimeString();
  client.part("pings").textContent =
    `Pings answered: ${client.pingsAnswered}. Last ping ${time}, ${outcome}.`;
  client.addLine({ kind: "ping", text: `Ping, ${outcome}` });
}

/* For each message type, the line it makes: {who, text, note, at}. */
const LINES = {
  welcome: (m) => ({ text: (m.message ?? `Welcome to room "${m.room}"`) + headCount(m) }),
  system: (m) => ({ text: m.message + headCount(m) }),
  error: (m) => ({ text: `Error: ${m.message}` }),
  echo: (m) => ({ who: "Echo", text: JSON.stringify(m.data) }),
  message: (m) => ({ who: m.sender ?? m.fromUsername, text: m.text, at: m.timestamp }),
  direct: (m) => ({ who: m.fromUsername, text: m.text, note: "to you alone", at: m.timestamp }),
  sent: (m) => ({ text: `Delivered to user ${m.to}: ${m.text}`, at: m.timestamp }),
};

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
  constructor(section, sample) {
    this.section = section;
    this.sample = sample;
    this.state = "disconnected";
    this.address = null; // where the socket connects, and reconnects
    this.socket = null;
    this.listeners = null; // an AbortController for the socket's listeners
    this.timer = null; // the reconnection countdown
    this.attempt = 0; // reconnections tried since the last welcome
    this.hasOpened = false; // since the person last asked to connect
    this.pingsAnswered = 0;
    this.setUp();
  }

  part(role) {
    return this.section.querySelector(`[data-role="${role}"]`);
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
    this.sample.setUp?.(this);
    if (this.sample.connectsAlone) this.connect();
    else this.showButtons();
  }

  // -- what the person asks for

  connect() {
    const address = this.sample.address(this);
    if (!address) return;
    if (this.state === "disconnected" || address !== this.address) {
      this.attempt = 0;
      this.hasOpened = false;
    }
    this.address = address;
    this.open();
  }

  disconnect() {
    this.letGo();
    this.show("disconnected", "Disconnected");
    this.addLine({ kind: "info", text: "You disconnected" });
  }

  sendTyped() {
    const input = this.part("input");
    const text = input.value;
    if (text.trim() === "" || this.socket?.readyState !== WebSocket.OPEN) return;
    const { body, note } = this.sample.compose(this, text);
    this.send(body);
    this.addLine({ kind: "own", who: "You", text, note });
    input.value = "";
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
      this.show("connected", "Connected");
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
    const handler = this.sample.handlers?.[message.type];
    const line = Object.hasOwn(LINES, message.type) && LINES[message.type];
    if (handler) handler(this, message);
    else if (line) this.addLine({ kind: message.type, ...line(message) });
    else this.addLine({ kind: "info", text: `Received: ${frame}` });
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
    const final = this.sample.giveUp?.(this, { code, reason });
    if (final) {
      this.show("disconnected", `Disconnected (${why}). ${final}`);
      this.addLine({ kind: "error", text: final });
      return;
    }
    if (this.attempt === 0) {
      const what = this.hasOpened ? "Connection lost" : "Could not connect";
      const hint = this.sample.lossHint ? ` ${this.sample.lossHint}` : "";
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
    this.state = state;
    const status = this.part("status");
    status.dataset.state = state;
    status.textContent = text;
    this.showButtons();
  }

  showButtons() {
    const [connect, disconnect] = [this.part("connect"), this.part("disconnect")];
    const focused = document.activeElement;
    const next = this.sample.address(this);
    const busy = this.state === "connected" || this.state === "connecting";
    connect.disabled = !next || (busy && next === this.address);
    disconnect.disabled = this.state === "disconnected";
    this.part("send").disabled = this.state !== "connected";
    // A button that goes grey under the keyboard hands the focus on.
    if (focused === connect && connect.disabled) disconnect.focus();
    if (focused === disconnect && disconnect.disabled) connect.focus();
  }

  addLine(line) {
    const list = this.part("messages");
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(lineElement(line));
    while (list.children.length > MAX_LINES) list.firstElementChild.remove();
    if (atEnd || line.kind === "own") list.scrollTop = list.scrollHeight;
  }
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
  const textContent = date.toLocaleTimeString();
  item.append(element("time", { dateTime: date.toISOString(), textContent }));
  return item;
}

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

/* Fill a section from the page's template, then make it a Client. */
function makePanel(section, sample) {
  const template = document.querySelector("template[data-role='panel']");
  section.append(template.content.cloneNode(true));
  const name = section.querySelector("[data-role='username'], [data-role='login-username']");
  if (name) name.value = section.dataset.username;
  section.querySelector("h2").textContent = section.getAttribute("aria-label");
  return new Client(section, sample);
}

function start() {
  const sample = SAMPLES[document.body.dataset.sample];
  for (const section of document.querySelectorAll(".client")) makePanel(section, sample);
  // Only inside the demo is there a page above this one.
  if (location.pathname !== "/") document.querySelector("[data-role='home']").hidden = false;
}

start();
