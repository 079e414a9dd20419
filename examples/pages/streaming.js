/* The page of the example streaming: responses shown piece by piece, and a room heard by server-sent events. */

const part = (role) => document.querySelector(`[data-role="${role}"]`);
const address = (path) => new URL(path, location.href);

function add(role, text) {
  const line = document.createElement("li");
  line.textContent = text;
  part(role).append(line);
  part(role).scrollTop = part(role).scrollHeight;
}

let stop = () => {};

async function countDown() {
  const controller = new AbortController();
  stop = () => controller.abort();
  try {
    const response = await fetch(address("countdown/3"), { signal: controller.signal });
    const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let { value, done } = await pieces.read(); !done; { value, done } = await pieces.read()) {
      add("made", value.trim());
    }
  } catch (error) {
    add("made", controller.signal.aborted ? "Stopped." : `Failed: ${error.message}`);
  }
}

function ticks() {
  const source = new EventSource(address("ticks"));
  source.addEventListener("tick", (event) => add("made", `Tick ${JSON.parse(event.data).number}`));
  stop = () => source.close();
}

part("countdown").addEventListener("click", () => { stop(); countDown(); });
part("ticks").addEventListener("click", () => { stop(); ticks(); });
part("stop").addEventListener("click", () => stop());

/* The chat. A browser that can have no WebSocket hears it all the same. */
function show(state, text) {
  part("status").dataset.state = state;
  part("status").textContent = text;
  part("send").disabled = state !== "connected";
}

const events = new EventSource(address("events/lobby"));
events.addEventListener("open", () => {
  show("connected", "Listening");
  if (socket.readyState > WebSocket.OPEN) socket = connect(); // the server is back
});
events.addEventListener("error", () => show("lost", "Lost. Reconnecting"));
events.addEventListener("message", (event) => add("heard", JSON.parse(event.data).text));
events.addEventListener("close", (event) => show("lost", JSON.parse(event.data).reason));

const connect = () => new WebSocket(address("ws/lobby").href.replace(/^http/, "ws"));
let socket = connect();
part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { text } = event.target.elements;
  if (text.value.trim() && socket.readyState === WebSocket.OPEN) {
    socket.send(text.value.trim());
    text.value = "";
  }
});
