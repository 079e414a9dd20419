// Node with Socket.IO, as its documentation says is fastest: WebSockets alone, no compression.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const NEVER = 3600000; // milliseconds between pings: the generator does not answer them, and is gone before the first
const server = createServer();
const io = new Server(server, {
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
  pingInterval: NEVER,
});

io.on("connection", (socket) => {
  socket.join("room");
  socket.on("say", (data) => io.to("room").emit("say", data));
  socket.on("ask", (data, answer) => answer(data));
});

server.listen(Number(process.env.BENCH_PORT), "127.0.0.1", 4096);
