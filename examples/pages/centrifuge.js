/*
 * The page of the example centrifuge: each panel is a client of the protocol's
 * SDK. That connects, and connects again; subscribes to the rooms again, each
 * from the position of the last message that it has; and falls back to HTTP.
 *
 * client.rooms    the rooms it is in, by name: {subscription, position, people,
 *                 unread, missed, history}
 * client.room     the one that is shown
 */

import { Panel } from "./panel.js";

const RETRY_AFTER = 5000; // ms: time enough to write on the other side. (Otherwise leave it to the SDK: 500)
const REMEMBERED = 50; // how many messages a room shows to who enters it
const HINT = "The SDK could not be loaded: “npm install --prefix examples centrifuge”, and restart the server.";

/* What differs from the other pages. `base` is a page with a log-in. */
export const centrifuge = (base) => ({
  ...base,
  Client: SDKClient,
  idle: globalThis.Centrifuge ? base.idle : HINT,
  address: (client) => globalThis.Centrifuge && client.pass && "connection",
});

class SDKClient extends Panel {
  sdk = null;
  isNew = false; // the SDK's object has not been connected yet
  id = null; // the connection's
  me = null; // its user's
  names = []; // of all rooms
  rooms = new Map();
  room = "general";

  setUp() {
    super.setUp();
    this.part("leave").addEventListener("click", () => this.rooms.get(this.room).subscription.unsubscribe());
    this.part("roll").addEventListener("click", () => this.roll());
    this.part("cut").addEventListener("click", () => this.sdk.rpc("cut", null).catch(() => {})); // no answer will come
  }

  // -- the connection

  get isOpen() {
    return this.state === "connected";
  }

  open() {
    this.letGo();
    const transports = this.part("transport").value.split(" ").map((transport) => {
      const endpoint = new URL(`connection/${transport}`, location.href);
      if (transport === "websocket") endpoint.protocol = location.protocol.replace("http", "ws");
      return { transport, endpoint: endpoint.href };
    });
    const emulationEndpoint = new URL("emulation", location.href).href;
    const sdk = new Centrifuge(transports, { token: this.pass, emulationEndpoint, minReconnectDelay: RETRY_AFTER });
    Object.assign(this, { sdk, isNew: true });
    this.listen(sdk, {
      connecting: (context) => this.connecting(context),
      connected: (context) => this.connected(context),
      disconnected: (context) => this.disconnected(context),
    });
    sdk.connect();
  }

  /* Close the connection, if any, and hear no more of it. */
  letGo() {
    const sdk = this.sdk;
    this.sdk = null;
    sdk?.disconnect();
  }

  /* Hear of an emitter's events for as long as its SDK object is the one in use. */
  listen(emitter, listeners) {
    const { sdk } = this;
    for (const [event, listener] of Object.entries(listeners)) {
      emitter.on(event, (context) => {
        if (this.sdk === sdk) listener(context);
      });
    }
  }

  connecting({ code, reason }) {
    if (!this.hasOpened || this.state !== "connected") return this.show("connecting", "Connecting");
    this.attempt = 1;
    this.addLine({ kind: "info", text: `Connection lost (${code} ${reason})` });
    this.show("lost", `Lost (${code} ${reason}). The SDK will connect again`);
  }

  connected({ client, transport, data: { user, name, rooms } }) {
    if (this.me !== user) {
      this.rooms.clear();
      this.room = "general";
      this.part("messages").replaceChildren();
    }
    this.addLine({ kind: "welcome", text: this.attempt > 0 ? "Connected again" : `Welcome, ${name}!` });
    Object.assign(this, { id: client, me: user, names: rooms, hasOpened: true, attempt: 0 });
    this.show("connected", `Connected as ${name} by ${transport}`);
    const known = this.rooms.size ? [...this.rooms.keys()] : [this.room];
    if (this.isNew) for (const room of known) this.enter(room); // else the SDK knows them
    this.isNew = false;
    this.render();
  }

  /* For good: the server does not want this client, or its token is too old. */
  disconnected({ code, reason }) {
    this.letGo();
    this.pass = null;
    this.show("disconnected", `Disconnected (${code} ${reason})`);
    this.addLine({ kind: "error", text: `${reason}: please log in again.` });
  }

  // -- the rooms

  enter(name) {
    const room = this.rooms.get(name) ?? { unread: 0, missed: null };
    const subscription = this.sdk.newSubscription(`chat:${name}`, { joinLeave: true, since: room.position });
    this.rooms.set(name, Object.assign(room, { subscription, people: new Map() }));
    this.listen(subscription, {
      subscribed: (context) => this.entered(name, room, context),
      unsubscribed: (context) => this.left(name, context),
      publication: (context) => this.heard(name, room, context),
      join: ({ info }) => this.came(name, room, info),
      leave: ({ info }) => this.went(name, room, info),
    });
    subscription.subscribe();
    this.render();
  }

  /* The server has let it in. What it has missed comes next, or what the room remembers is asked for. */
  entered(name, room, { wasRecovering, recovered, streamPosition, data }) {
    room.position = streamPosition;
    if (recovered) {
      room.missed = 0;
      setTimeout(() => { // the SDK hands over what was missed before anything else has its turn
        this.addRoomLine(name, { kind: "info", text: `Missed, and here now: ${room.missed}` });
        room.missed = null;
      });
    } else {
      const gap = "Some messages are missing here: you were away for too long";
      this.addRoomLine(name, { kind: "info", text: wasRecovering ? gap : `${name}: ${data.topic}` });
      room.history = this.showHistory(name, room);
    }
    this.showPeople(room);
  }

  async showHistory(name, { subscription, position }) {
    const { publications } = (await this.answer(subscription.history({ limit: REMEMBERED, reverse: true }))) ?? {};
    for (const said of publications?.reverse() ?? []) {
      if (said.offset <= position.offset) this.addSaid(name, said); // those after it come by themselves
    }
  }

  async showPeople(room) {
    const { clients } = (await this.answer(room.subscription.presence())) ?? {};
    room.people = new Map(Object.entries(clients ?? {}));
    this.render();
  }

  async heard(name, room, said) {
    room.position = { ...room.position, offset: said.offset };
    const wasMissed = room.missed !== null;
    if (wasMissed) room.missed += 1;
    await room.history; // that comes first
    this.addSaid(name, said, wasMissed && "missed");
    if (name !== this.room) room.unread += 1;
    this.render();
  }

  came(name, room, info) {
    const isNews = info.client !== this.id && !isHere(room, info.user);
    if (isNews) this.addRoomLine(name, { kind: "system", text: `${nameOf(info)} has come` });
    room.people.set(info.client, info);
    this.render();
  }

  went(name, room, info) {
    const wasHere = room.people.delete(info.client);
    if (wasHere && !isHere(room, info.user)) {
      this.addRoomLine(name, { kind: "system", text: `${nameOf(info)} has left` });
    }
    this.render();
  }

  left(name, { code, reason }) {
    this.sdk.removeSubscription(this.rooms.get(name).subscription);
    this.rooms.delete(name);
    for (const line of this.linesOf(name)) line.remove();
    if (code !== 0) this.addLine({ kind: "error", text: `Not in ${name} (${code} ${reason})` }); // 0: it wanted to leave
    this.render();
  }

  // -- what it asks of the server

  async submit(text) {
    const input = this.part("input");
    const said = await this.answer(this.sdk.publish(`chat:${this.room}`, { text }));
    if (said && input.value === text) input.value = ""; // else it may be sent again
  }

  async roll() {
    const answer = await this.answer(this.sdk.rpc("roll", { room: this.room, sides: 6 }));
    if (answer) this.addLine({ kind: "sent", text: `The answer to the call: ${answer.data.number}` });
  }

  /* What a request comes to; undefined where it is refused, which is shown, or where the line is cut before. */
  async answer(request) {
    const { sdk } = this;
    try {
      return await request;
    } catch ({ code, message }) {
      const isAnswered = code >= 100; // less: it is the SDK that has given up
      if (this.sdk === sdk && isAnswered) this.addLine({ kind: "error", text: `Error ${code}: ${message}` });
    }
  }

  // -- what the person sees

  addSaid(name, { data, info }, note) {
    const own = info.user === this.me;
    const who = own ? "You" : nameOf(info);
    this.addRoomLine(name, { kind: own ? "own" : "message", who, text: data.text, at: data.at, note });
  }

  /* A line of one room: shown while the room is. */
  addRoomLine(name, line) {
    const item = this.addLine(line);
    item.dataset.room = name;
    item.hidden = name !== this.room;
  }

  linesOf(name) {
    return [...this.part("messages").children].filter(({ dataset }) => dataset.room === name);
  }

  choose(name) {
    this.room = name;
    if (this.rooms.has(name)) this.rooms.get(name).unread = 0;
    else this.enter(name);
    for (const line of this.part("messages").children) {
      line.hidden = line.dataset.room !== undefined && line.dataset.room !== name;
    }
    this.render();
  }

  render() {
    const list = this.part("rooms");
    if (list.children.length !== this.names.length) {
      list.replaceChildren(...this.names.map((name) => {
        const button = Object.assign(document.createElement("button"), { type: "button" });
        button.addEventListener("click", () => this.choose(name));
        return button;
      }));
    }
    for (const [index, name] of this.names.entries()) {
      const room = this.rooms.get(name);
      list.children[index].textContent = room ? `#${name}${room.unread ? ` (${room.unread})` : ""}` : `+ ${name}`;
      list.children[index].setAttribute("aria-pressed", name === this.room);
    }
    const shown = this.rooms.get(this.room);
    const people = new Set([...(shown?.people.values() ?? [])].map(nameOf)); // each once, from however many pages
    this.part("leave").disabled = !shown;
    this.part("people").textContent = shown ? `Here: ${[...people].join(", ")}.` : "You are not in this room.";
  }
}

function isHere(room, user) {
  return [...room.people.values()].some((info) => info.user === user);
}

function nameOf({ connInfo, user }) {
  return connInfo?.name ?? user;
}
