/* The page of the example cluster: eight clients, and the workers that serve them. */

const CLIENTS = 8;
const SAY_EVERY = 1000; // ms
const SHOW_EVERY = 250; // ms: messages come faster than anybody can read
const RETRY_WITHIN = 2000; // ms: the SDK would wait for up to 20 s
const HINT = "The SDK could not be loaded: “npm install --prefix examples centrifuge”, and start again.";

const STATES = { connecting: "new", connected: "live", lost: "lost" };

const part = (role) => document.querySelector(`[data-role="${role}"]`);
const endpoint = new URL("connection/websocket", location.href.replace(/^http/, "ws")).href;

class Client {
  id = null; // the connection's
  worker = null; // the process that serves it
  state = "connecting"; // at first; then "connected" or "lost"
  messages = 0;
  missing = 0;
  resumed = 0;
  position = null; // of the last message it knows of: {offset, epoch}
  said = 0;

  constructor(number) {
    this.number = number;
    this.sdk = new Centrifuge(endpoint, { maxReconnectDelay: RETRY_WITHIN });
    this.sdk.on("connected", ({ client, data }) => this.connected(client, data.worker));
    this.sdk.on("connecting", () => (this.state = this.id ? "lost" : "connecting"));
    this.sdk.on("disconnected", () => (this.state = "lost"));
    this.lobby = this.sdk.newSubscription("lobby", { joinLeave: true });
    this.lobby.on("subscribed", (context) => this.entered(context));
    this.lobby.on("publication", ({ offset }) => this.heard(offset));
    this.lobby.on("join", askWhoIsHere);
    this.lobby.on("leave", askWhoIsHere);
    this.lobby.subscribe();
    this.sdk.connect();
    setInterval(() => this.say(), SAY_EVERY);
  }

  connected(id, worker) {
    Object.assign(this, { id, worker });
    own.set(id, this);
  }

  /* It is in the room. If it was there before, what it has missed comes next, or is gone. */
  entered({ wasRecovering, recovered, streamPosition: { offset, epoch } }) {
    this.state = "connected";
    if (recovered) {
      this.resumed += 1;
    } else {
      const known = this.position?.epoch === epoch ? this.position.offset : 0;
      if (wasRecovering) this.missing += Math.max(1, offset - known);
      this.position = { offset, epoch };
    }
    askWhoIsHere();
  }

  heard(offset) {
    this.messages += 1;
    this.missing += Math.abs(offset - this.position.offset - 1); // one that comes twice is no less wrong
    this.position.offset = offset;
  }

  /* What is said at the moment its worker dies may be lost: the SDK says so, and does not try again. */
  say() {
    if (this.state === "connected") this.lobby.publish((this.said += 1)).catch(() => {});
  }

  /* Its worker dies before it can answer. */
  kill() {
    this.sdk.rpc("kill", null).catch(() => {});
  }
}

// -- who is here, as the room's presence has it

const clients = [];
const own = new Map(); // they, by the ids of all connections that they have had
let serving = new Map(); // the ids of the clients that each worker serves
let isAsking = false;
let isStale = false; // somebody has come or gone since it was asked

async function askWhoIsHere() {
  isStale = true;
  if (isAsking) return;
  isAsking = true;
  while (isStale) {
    isStale = false;
    try {
      const asking = clients.find(({ state }) => state === "connected");
      if (asking) serving = byWorker((await asking.lobby.presence()).clients);
    } catch {
      isStale = true; // its worker has died, or Redis is away
    }
    await new Promise((resolve) => setTimeout(resolve, SHOW_EVERY));
  }
  isAsking = false;
}

function byWorker(present) {
  const workers = new Map();
  for (const [id, { chanInfo }] of Object.entries(present)) {
    workers.set(chanInfo.worker, [...(workers.get(chanInfo.worker) ?? []), id]);
  }
  return workers;
}

// -- what is shown

function show(role, state, text) {
  const element = part(role);
  element.dataset.state = state;
  if (element.textContent !== text) element.textContent = text; // else it would be read out again
}

/* The row of a table for this key; a new one has the cells of `html`. */
function row(role, key, html) {
  const known = part(role).querySelector(`[data-key="${key}"]`);
  if (known) return known;
  const cells = document.createElement("tr");
  cells.dataset.key = key;
  cells.innerHTML = html;
  cells.firstChild.textContent = key;
  part(role).append(cells);
  return cells;
}

function showClients() {
  for (const client of clients) {
    const cells = row("clients", client.number, `<th scope="row"></th>${"<td></td>".repeat(5)}`);
    const figures = [client.worker ?? "", STATES[client.state], client.messages, client.missing, client.resumed];
    figures.forEach((figure, index) => (cells.children[index + 1].textContent = figure));
    cells.children[2].dataset.state = client.state;
    cells.children[4].dataset.state = client.missing ? "lost" : "connected";
  }
  const sum = (figure) => clients.reduce((total, client) => total + client[figure], 0);
  const connected = clients.filter(({ state }) => state === "connected").length;
  const state = sum("missing") ? "lost" : connected < CLIENTS ? "connecting" : "connected";
  show("status", state, `${connected} of ${CLIENTS} connected, ${sum("missing") || "nothing"} missing`);
}

function showWorkers() {
  for (const cells of [...part("workers").children]) if (!serving.has(Number(cells.dataset.key))) cells.remove();
  const dead = [];
  for (const [worker, ids] of serving) {
    const cells = row("workers", worker, '<th scope="row"></th><td></td><td></td><td><button type="button">Kill</button></td>');
    const here = ids.filter((id) => own.get(id)?.id === id && own.get(id).state === "connected");
    if (ids.some((id) => own.has(id)) && !here.length) dead.push(worker); // its clients are elsewhere by now
    cells.children[1].textContent = ids.length;
    cells.children[2].textContent = here.map((id) => own.get(id).number).join(" ") || "none of this page";
    const button = cells.querySelector("button");
    button.ariaLabel = `Kill ${worker}`;
    button.disabled = !here.length;
    button.onclick = () => own.get(here[0]).kill();
  }
  if (dead.length) show("news", "lost", `Not heard of any more: ${dead.join(", ")}`);
  else if (serving.size) show("news", "connected", `${serving.size} serve the room`);
}

if (globalThis.Centrifuge) {
  for (let number = 1; number <= CLIENTS; number += 1) clients.push(new Client(number));
  setInterval(() => {
    showClients();
    showWorkers();
  }, SHOW_EVERY);
} else {
  show("status", "disconnected", HINT);
}
