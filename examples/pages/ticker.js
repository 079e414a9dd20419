/* The page of the example ticker: prices as they come, and what the server says about itself. */

const SHOW_EVERY = 200; // ms: prices come faster than anybody can read
const ASK_EVERY = 500; // ms
const RETRY_WITHIN = 3000; // ms

const part = (role) => document.querySelector(`[data-role="${role}"]`);
const address = (path) => new URL(path, location.href);
const quotes = new Map(); // the latest of each symbol
let socket = null; // while the person wants to watch
let retry = null;

function show(role, state, text) {
  part(role).dataset.state = state;
  part(role).textContent = text;
}

function watch() {
  const current = new WebSocket(address("ws").href.replace(/^http/, "ws"));
  socket = current;
  part("watch").textContent = "Stop watching";
  show("status", "connecting", "Connecting");
  current.addEventListener("open", () => show("status", "connected", "Watching"));
  current.addEventListener("message", ({ data }) => {
    const quote = JSON.parse(data);
    quotes.set(quote.symbol, quote);
  });
  current.addEventListener("close", () => {
    if (socket !== current) return; // the person has stopped watching
    show("status", "lost", "Lost. Reconnecting");
    retry = setTimeout(watch, Math.random() * RETRY_WITHIN);
  });
}

function stop() {
  const current = socket;
  socket = null;
  clearTimeout(retry);
  current.close();
  part("watch").textContent = "Watch";
  show("status", "disconnected", "Not watching");
}

function row(symbol) {
  const cells = document.createElement("tr");
  cells.dataset.symbol = symbol;
  cells.innerHTML = '<th scope="row"></th><td></td><td></td>';
  cells.firstChild.textContent = symbol;
  part("prices").append(cells);
  return cells;
}

function showQuotes() {
  for (const { symbol, price, number } of quotes.values()) {
    const cells = part("prices").querySelector(`[data-symbol="${symbol}"]`) ?? row(symbol);
    cells.children[1].textContent = price.toFixed(2);
    cells.children[2].textContent = `no. ${number}`;
  }
  quotes.clear();
}

async function ask() {
  try {
    const status = await (await fetch(address("status"))).json();
    show("task", status.running ? "connected" : "disconnected", `The task is ${status.running ? "" : "not "}running`);
    for (const figure of ["watching", "slow", "sent", "dropped"]) part(figure).textContent = status[figure];
  } catch {
    show("task", "lost", "The server does not answer");
  }
  setTimeout(ask, ASK_EVERY);
}

part("command").textContent = `python examples/slow.py ${address("events")}`;
part("watch").addEventListener("click", () => (socket ? stop() : watch()));
setInterval(showQuotes, SHOW_EVERY);
watch();
ask();
