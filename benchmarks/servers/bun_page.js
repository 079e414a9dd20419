// Bun with the code that Verb's page of WebSocket examples has for rooms: its shape (a Map of Sets, welcome and notices,
// a loop that sends to everybody else), written for Bun's own API.
const { BENCH_CERT: cert, BENCH_KEY: key } = process.env;
const OPEN = WebSocket.OPEN;
const rooms = new Map();

function tellOthers(name, sender, message) {
  const members = rooms.get(name);
  if (!members) return;
  const text = JSON.stringify(message);
  for (const member of members) {
    if (member !== sender && member.readyState === OPEN) member.send(text);
  }
}

Bun.serve({
  port: Number(process.env.BENCH_PORT),
  hostname: "127.0.0.1",
  ...(cert ? { tls: { cert: Bun.file(cert), key: Bun.file(key) } } : {}),
  fetch(request, server) {
    const name = new URL(request.url).pathname;
    if (server.upgrade(request, { data: { name } })) return;
    return new Response("WebSocket only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    open(ws) {
      const { name } = ws.data;
      if (!rooms.has(name)) rooms.set(name, new Set());
      const members = rooms.get(name);
      members.add(ws);
      ws.send(JSON.stringify({ type: "welcome", room: name, userCount: members.size }));
      tellOthers(name, ws, { type: "system", message: "A user has joined the room", userCount: members.size });
    },
    message(ws, message) {
      try {
        const data = JSON.parse(message);
        tellOthers(ws.data.name, ws, {
          type: "message",
          sender: data.username || "Anonymous",
          text: data.text,
          timestamp: new Date().toISOString(),
        });
      } catch (error) {
        ws.send(JSON.stringify({ type: "error", message: "Invalid JSON format" }));
      }
    },
    close(ws) {
      const { name } = ws.data;
      const members = rooms.get(name);
      if (!members) return;
      members.delete(ws);
      tellOthers(name, ws, { type: "system", message: "A user has left the room", userCount: members.size });
      if (members.size === 0) rooms.delete(name);
    },
  },
});
