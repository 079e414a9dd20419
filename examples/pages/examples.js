/*
 * What differs from example to example.
 *
 * address(client)         where to connect, or null while that is not known
 * compose(client, text)   what to send for a typed text: {body, note}; a string
 *                         body goes out as it is, the rest as JSON
 * submit(client, text)    instead of compose: what to do with a typed text
 * connectsAlone           connect when the page loads
 * idle                    otherwise: the status until somebody connects
 * moveLabel               the Connect button's label while connected elsewhere
 * setUp(client)           anything to do once, when the panel is made
 * opened(client)          anything to do when the socket has opened
 * handlers[type](client)  a message type that is more than a line in the list
 * greets                  the server's first message is a welcome
 * repeats                 the server sends a message to its sender, too
 * giveUp(client, event)   after a lost connection: a reason not to reconnect
 * lossHint                a sentence added to the "connection lost" line
 * Client                  the panel's class, where it is not page.js that connects
 */

import { centrifuge } from "./centrifuge.js";
import { teamchat } from "./teamchat.js";

const PLAIN = {
  connectsAlone: true,
  greets: true,
  address: () => socketAddress("ws"),
  compose: (client, text) => ({ body: { type: "message", text } }),
};

/* Messages are typed as JSON, or chosen from a few that are given. */
const CONSOLE = {
  ...PLAIN,
  greets: false,
  compose: (client, text) => ({ body: text }),
  setUp(client) {
    for (const chip of client.parts("chip")) {
      chip.addEventListener("click", () => {
        client.part("input").value = chip.textContent;
        client.sendTyped();
      });
    }
  },
};

/* There is no connection without a login. */
const WITH_LOGIN = {
  ...PLAIN,
  connectsAlone: false,
  idle: "Disconnected. Log in to connect.",
  setUp(client) {
    client.part("login").addEventListener("submit", (event) => {
      event.preventDefault();
      logIn(client);
    });
  },
  giveUp(client, { code, reason }) {
    if (code === 1008 || code === 4401) {
      client.pass = null;
      return `${reason || "You are logged out"}: please log in again.`;
    }
    return client.hasOpened ? null : "The server refused the connection: please log in again.";
  },
};

export const EXAMPLES = {
  echo: {
    ...PLAIN,
    compose: (client, text) =>
      client.part("raw").checked
        ? { body: text, note: "as raw text" }
        : PLAIN.compose(client, text),
  },

  broadcast: { ...PLAIN, compose: composeChat },

  rooms: {
    ...PLAIN,
    address: roomAddress,
    compose: composeChat,
    moveLabel: "Change room",
    setUp(client) {
      // Another room is somewhere else to connect to: offer the button.
      const room = client.part("room");
      room.addEventListener("input", () => client.showButtons());
      room.addEventListener("keydown", (event) => {
        if (event.key === "Enter") client.connect();
      });
    },
  },

  auth: {
    ...WITH_LOGIN,
    lossHint: "If it does not come back, log in again: the token may be too old.",
    address: (client) => client.pass && socketAddress("ws", { token: client.pass }),
    compose(client, text) {
      const to = client.part("to").valueAsNumber;
      return Number.isNaN(to)
        ? { ...PLAIN.compose(client, text), note: "to everyone" }
        : { body: { type: "direct", to, text }, note: `to user ${to}` };
    },
  },

  sessions: {
    ...WITH_LOGIN,
    lossHint: "If it does not come back, log in again: the session may be over.",
    repeats: true,
    address: (client) => client.pass && socketAddress("ws"), // the browser adds the cookie
    setUp(client) {
      WITH_LOGIN.setUp(client);
      client.part("logout").addEventListener("click", () => post("logout"));
    },
  },

  teamchat: teamchat({
    ...WITH_LOGIN,
    address: (client) => client.pass && socketAddress("ws", { token: client.pass }),
  }),

  centrifuge: centrifuge(WITH_LOGIN),

  heartbeat: {
    ...PLAIN,
    address: () => socketAddress("quick"),
    setUp(client) {
      client.heart = { answered: 0, ping: 0, pong: 0 };
      setInterval(() => showHeart(client), 100);
    },
    opened(client) {
      client.heart.ping = client.heart.pong = seconds();
    },
    handlers: { ping: answerPing },
  },

  answers: CONSOLE,

  validation: { ...CONSOLE, address: () => socketAddress("ws/blackboard") },

  lifecycle: {
    ...CONSOLE,
    address: (client) => socketAddress(client.part("path").value),
    setUp(client) {
      CONSOLE.setUp(client);
      client.part("path").addEventListener("change", () => client.connect());
    },
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
  if (error) {
    client.addLine({ kind: "error", text: `Log-in failed: ${error}` });
  } else {
    client.pass = token ?? "cookie"; // in memory only: gone with the page
    client.connect();
  }
}

async function post(path, data = {}) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(data);
  try {
    const response = await fetch(new URL(path, location.href), { method: "POST", headers, body });
    return (await response.json()) ?? {};
  } catch {
    return { error: "the server gave no usable answer" };
  }
}

function seconds() {
  return performance.now() / 1000;
}

function answerPing(client) {
  const { heart } = client;
  const answers = client.part("answer-pings").checked;
  heart.ping = seconds();
  if (answers) {
    client.send({ type: "pong" });
    heart.pong = heart.ping;
    heart.answered += 1;
  }
  const outcome = answers ? "answered" : "not answered";
  const time = new Date().toLocaleTimeString([], { hourCycle: "h23" });
  client.part("pings").textContent =
    `Pings answered: ${heart.answered}. Last ping ${time}, ${outcome}.`;
  client.addLine({ kind: "ping", text: `Ping, ${outcome}` });
}

/* Count down to the next ping, or to the server's hanging up. */
function showHeart(client) {
  const { interval, timeout } = client.section.dataset;
  const { ping, pong } = client.heart;
  const answers = client.part("answer-pings").checked;
  const connected = client.state === "connected";
  const [whole, since] = answers ? [Number(interval), ping] : [Number(timeout), pong];
  const left = connected ? Math.max(0, since + whole - seconds()) : 0;
  const what = answers ? "Next ping" : "No pong: the server hangs up";
  const text = connected ? `${what} in ${Math.ceil(left)} s` : "Not connected";
  const countdown = client.part("countdown");
  if (countdown.textContent !== text) countdown.textContent = text;
  client.part("progress").value = left / whole;
}
