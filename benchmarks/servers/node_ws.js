// Node with ws; rooms by a loop over a Set, as its documentation shows.
const { createServer } = require("node:http");
const { createServer: createTlsServer } = require("node:https");
const { readFileSync } = require("node:fs");
const { WebSocket, WebSocketServer } = require("ws");

const { BENCH_CERT: cert, BENCH_KEY: key } = process.env;
const heartbeat = Number(process.env.BENCH_HEARTBEAT || 0);
const server = cert
  ? createTlsServer({ cert: readFileSync(cert), key: readFileSync(key) })
  : createServer();
const wss = new WebSocketServer({ server, perMessageDeflate: false });
const rooms = { "/room": new Set(), "/json": new Set() };

const say = (message) => {
  const data = JSON.parse(message);
  return JSON.stringify({
    type: "message",
    sender: data.username || "Anonymous",
    text: data.text,
    timestamp: new Date().toISOString(),
  });
};

wss.on("connection", (ws, request) => {
  const path = request.url;
  const members = rooms[path];
  ws.on("error", () => {});
  if (!members) {
    ws.on("message", (data) => ws.send(data, { binary: false }));
    return;
  }
  members.add(ws);
  ws.on("close", () => members.delete(ws));
  ws.on("message", (data) => {
    const text = path === "/json" ? say(data) : data;
    for (const member of members) {
      if (member !== ws && member.readyState === WebSocket.OPEN) member.send(text, { binary: false });
    }
  });
});

if (heartbeat) {
  setInterval(() => wss.clients.forEach((ws) => ws.ping()), heartbeat * 1000);
}
server.listen(Number(process.env.BENCH_PORT), "127.0.0.1", 4096);
