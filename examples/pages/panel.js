/*
 * A panel: one client of an example, as the person sees it and works it.
 *
 * Its elements are found by their data-role. A subclass connects it, and has:
 *
 * open()         connect, to `this.address`; what was open before is let go
 * letGo()        close the connection, if any, and hear no more of it
 * isOpen         whether something can be sent
 * submit(text)   send what was typed
 */

const MAX_LINES = 200; // the message list forgets its oldest lines

export class Panel {
  constructor(section, example) {
    this.section = section;
    this.example = example;
    this.state = "disconnected";
    this.address = null; // where it connects, and reconnects
    this.attempt = 0; // reconnections tried since the last welcome
    this.hasOpened = false; // since the person last asked to connect
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
    // A page that is left may be kept for the "Back" button, but not its connection.
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
    const text = this.part("input").value;
    if (text.trim() !== "" && this.isOpen) this.submit(text);
  }

  /* Whether a lost connection is being opened again, or waits for that. */
  get retries() {
    return this.state === "lost" || (this.state === "connecting" && this.attempt > 0);
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
