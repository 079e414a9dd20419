// Bun, rooms by its native publish.
const say = (message) => {
  const data = JSON.parse(message);
  return JSON.stringify({
    type: "message",
    sender: data.username || "Anonymous",
    text: data.text,
    timestamp: new Date().toISOString(),
  });
};

const heartbeat = Number(process.env.BENCH_HEARTBEAT || 0);
const { BENCH_CERT: cert, BENCH_KEY: key } = process.env;

Bun.serve({
  port: Number(process.env.BENCH_PORT),
  hostname: "127.0.0.1",
  ...(cert ? { tls: { cert: Bun.file(cert), key: Bun.file(key) } } : {}),
  fetch(request, server) {
    const path = new URL(request.url).pathname;
    if (server.upgrade(request, { data: { path } })) return;
    return new Response("WebSocket only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    sendPings: true,
    backpressureLimit: 64 * 1024 * 1024,
    ...(heartbeat ? { idleTimeout: Math.max(8, 2 * heartbeat) } : {}),
    open(ws) {
      if (ws.data.path !== "/echo") ws.subscribe(ws.data.path);
    },
    message(ws, message) {
      const path = ws.data.path;
      if (path === "/echo") ws.send(message);
      else ws.publish(path, path === "/json" ? say(message) : message);
    },
  },
});
