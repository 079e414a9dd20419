/* The browser side of the sessions sample: the cookie is the browser's business, so there is little to do. */

const part = (role) => document.querySelector(`[data-role="${role}"]`);
let socket = null;

part("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await post("login", Object.fromEntries(new FormData(event.target)));
  if (answer.username) connect();
  else addLine("error", `Log-in failed: ${answer.error}`);
});

part("logout").addEventListener("click", () => post("logout"));

part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = event.target.elements.text;
  if (!input.value || socket?.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify({ type: "message", text: input.value }));
  input.value = "";
});

async function post(path, data = {}) {
  const headers = { "Content-Type": "application/json" };
  try {
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(data) });
    return (await response.json()) ?? {};
  } catch {
    return { error: "the server gave no usable answer" };
  }
}

function connect() {
  socket?.close();
  const url = new URL("ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = (socket = new WebSocket(url));
  mine.onopen = () => show("connected", "Connected");
  mine.onmessage = (event) => {
    const message = JSON.parse(event.data);
    addLine("received", message.sender ? `${message.sender}: ${message.text}` : message.message);
  };
  mine.onclose = (event) => {
    if (mine === socket) show("disconnected", event.reason || "Disconnected. Log in to connect.");
  };
}

function show(state, text) {
  part("status").dataset.state = state;
  part("status").textContent = text;
  part("send").disabled = part("logout").disabled = state !== "connected";
}

function addLine(kind, text) {
  const line = document.createElement("li");
  line.dataset.kind = kind;
  line.textContent = text;
  part("messages").append(line);
}
