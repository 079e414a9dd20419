/*
 * The page of the example teamchat: many rooms on one socket.
 *
 * client.rooms    the rooms it is in: {position, people, typing, unread} by name.
 *                 The position is that of the last message it has: when the line
 *                 was cut, it comes back with it, and gets what it has missed
 * client.room     the one that is shown
 * client.asked    commands that wait for the answer with their `ref`
 */

const CUT = 30_000; // ms: how long a line that was cut stays so, if nobody retries
const TYPING = 2000; // ms: how long "is typing" is shown
const TYPING_AGAIN = 1000; // ms: how often it is told, while somebody types

/* What differs from the other pages. `base` is a page with a log-in. */
export const teamchat = (base) => ({
  ...base,
  connectsAlone: true, // with the token of before a reload, if there is one
  setUp(client) {
    base.setUp(client);
    // This tab's. (Any script of this page can read it; the example sessions has a cookie, which none can.)
    client.pass = sessionStorage.getItem(tokenKey(client));
    Object.assign(client, { me: null, names: [], room: "general", rooms: new Map() });
    Object.assign(client, { asked: new Map(), lastRef: 0, toldTyping: -Infinity });
    client.part("leave").addEventListener("click", () => leave(client));
    client.part("cut").addEventListener("click", () => cut(client));
    client.part("input").addEventListener("input", () => tellTyping(client));
  },
  opened(client) {
    for (const settle of client.asked.values()) settle(null); // no answer comes any more
    client.asked.clear();
  },
  giveUp(client, event) {
    const reason = base.giveUp(client, event);
    if (reason) forget(client);
    return reason;
  },
  submit,
  handlers: {
    welcome,
    done: answered,
    error(client, message) {
      client.addLine({ kind: "error", text: `Error: ${message.message}` });
      answered(client, message);
    },
    history(client, { room, position, messages }) {
      client.rooms.get(room).position = position;
      for (const message of messages) addSaid(client, { ...message, isOld: true });
    },
    said(client, message) {
      client.rooms.get(message.room).position = message.position;
      addSaid(client, message);
    },
    gap(client, { room }) {
      addRoomLine(client, room, { kind: "info", text: "Some messages are missing here: you were away for too long" });
    },
    direct(client, { by, name, to, text, at }) {
      const own = by === client.me;
      const note = own ? `to ${nameOf(client, to)} alone` : "to you alone";
      client.addLine({ kind: own ? "own" : "direct", who: own ? "You" : name, text, note, at });
    },
    typing,
    presence_state(client, { room, users }) {
      client.rooms.get(room).people = new Map(Object.entries(users).map(([id, { name }]) => [id, name]));
      render(client);
    },
    presence_diff,
  },
});

/* Send a command; promise its answer, or null if the line is cut before. */
function ask(client, command) {
  const ref = ++client.lastRef;
  client.send({ ...command, ref });
  return new Promise((settle) => client.asked.set(ref, settle));
}

function answered(client, answer) {
  client.asked.get(answer.ref)?.(answer);
  client.asked.delete(answer.ref);
}

function welcome(client, { id, name, rooms }) {
  if (client.me !== id) {
    client.rooms.clear();
    client.part("messages").replaceChildren();
  }
  Object.assign(client, { me: id, names: rooms });
  sessionStorage.setItem(tokenKey(client), client.pass);
  const known = client.rooms.size ? [...client.rooms.keys()] : [client.room];
  for (const room of known) join(client, room);
  client.show("connected", `Connected as ${name}`);
  client.addLine({ kind: "welcome", text: `Welcome, ${name}!` });
}

async function join(client, name) {
  const { position } = client.rooms.get(name) ?? {};
  client.rooms.set(name, { position, people: new Map(), typing: new Map(), unread: 0 });
  render(client);
  const answer = await ask(client, { type: "join", room: name, since: position });
  if (answer?.type === "error") client.rooms.delete(name);
  render(client);
}

async function leave(client) {
  const name = client.room;
  if ((await ask(client, { type: "leave", room: name }))?.type !== "done") return;
  client.rooms.delete(name);
  for (const line of linesOf(client, name)) line.remove();
  render(client);
}

async function submit(client, text) {
  const [input, to, room] = [client.part("input"), client.part("to").value, client.room];
  const send = client.part("send");
  if (document.activeElement === send) input.focus();
  send.disabled = true; // until it is answered: it is not said twice
  client.toldTyping = -Infinity;
  const answer = await ask(client, to ? { type: "direct", to, text } : { type: "say", room, text });
  client.showButtons();
  if (answer?.type !== "done") return; // the text stays: it may be sent again
  if (input.value === text) input.value = "";
  if (to) return;
  const tick = Object.assign(document.createElement("span"), { className: "note", textContent: "✓" });
  const line = linesOf(client, room).find(({ dataset }) => dataset.position === answer.position);
  line?.lastElementChild.before(tick, " ");
}

function cut(client) {
  client.letGo();
  client.attempt = 1;
  client.countDown("you cut the line", performance.now() + CUT);
}

function tellTyping(client) {
  const now = performance.now();
  const isForAll = client.part("to").value === "" && client.rooms.has(client.room);
  if (client.state !== "connected" || !isForAll || now - client.toldTyping < TYPING_AGAIN) return;
  client.toldTyping = now;
  client.send({ type: "typing", room: client.room }); // without a ref: nobody needs an answer
}

function typing(client, { room, by, name }) {
  const people = client.rooms.get(room).typing;
  clearTimeout(people.get(by)?.timer);
  people.set(by, { name, timer: setTimeout(() => stopTyping(client, room, by), TYPING) });
  render(client);
}

function stopTyping(client, room, by) {
  const people = client.rooms.get(room)?.typing;
  clearTimeout(people?.get(by)?.timer);
  people?.delete(by);
  render(client);
}

function presence_diff(client, { room, joins, updates, leaves }) {
  const { people } = client.rooms.get(room);
  for (const [id, { name }] of Object.entries({ ...joins, ...updates })) {
    if (!people.has(id)) addRoomLine(client, room, { kind: "system", text: `${name} has come` });
    people.set(id, name);
  }
  for (const [id, { name }] of Object.entries(leaves)) {
    if (people.delete(id)) addRoomLine(client, room, { kind: "system", text: `${name} has left` });
    stopTyping(client, room, id);
  }
  render(client);
}

function addSaid(client, { room, by, name, text, at, position, isOld }) {
  const own = by === client.me;
  const line = addRoomLine(client, room, { kind: own ? "own" : "message", who: own ? "You" : name, text, at });
  line.dataset.position = position ?? "";
  if (room !== client.room && !isOld) client.rooms.get(room).unread += 1;
  stopTyping(client, room, by);
}

/* A line of one room: shown while the room is. */
function addRoomLine(client, room, line) {
  const item = client.addLine(line);
  item.dataset.room = room;
  item.hidden = room !== client.room;
  return item;
}

function linesOf(client, room) {
  return [...client.part("messages").children].filter((line) => line.dataset.room === room);
}

function nameOf(client, id) {
  return [...client.rooms.values()].map(({ people }) => people.get(id)).find((name) => name) ?? id;
}

function choose(client, name) {
  client.room = name;
  if (!client.rooms.has(name)) join(client, name);
  for (const line of client.part("messages").children) {
    line.hidden = line.dataset.room !== undefined && line.dataset.room !== name;
  }
  client.rooms.get(name).unread = 0;
  render(client);
}

function render(client) {
  const shown = client.rooms.get(client.room);
  const list = client.part("rooms");
  if (list.children.length !== client.names.length) {
    list.replaceChildren(...client.names.map((name) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.addEventListener("click", () => choose(client, name));
      return button;
    }));
  }
  for (const [index, name] of client.names.entries()) {
    const room = client.rooms.get(name);
    list.children[index].textContent = room ? `#${name}${room.unread ? ` (${room.unread})` : ""}` : `+ ${name}`;
    list.children[index].setAttribute("aria-pressed", name === client.room);
  }
  client.part("leave").disabled = !shown;
  const people = [...(shown?.people.values() ?? [])];
  client.part("people").textContent = people.length ? `Here: ${people.join(", ")}.` : "You are not in this room.";
  const busy = [...(shown?.typing.values() ?? [])].map(({ name }) => name);
  client.part("typing").textContent = busy.length ? `${busy.join(", ")} ${busy.length > 1 ? "are" : "is"} typing` : "";
  client.part("people").hidden = busy.length > 0; // on a phone there is no place for both
  renderTo(client);
}

/* Whom one may write to alone: whoever is in one of the rooms. */
function renderTo(client) {
  const to = client.part("to");
  const others = new Map([...client.rooms.values()].flatMap(({ people }) => [...people]));
  others.delete(client.me);
  const wanted = ["", ...others.keys()];
  if (wanted.join() === [...to.options].map(({ value }) => value).join()) return; // else an open list would close
  const { value } = to;
  to.replaceChildren(...wanted.map((id) => new Option(others.get(id) ?? "the room", id)));
  to.value = others.has(value) ? value : "";
}

function tokenKey(client) {
  return `teamchat ${client.section.dataset.client}`;
}

function forget(client) {
  client.pass = null;
  sessionStorage.removeItem(tokenKey(client));
}
