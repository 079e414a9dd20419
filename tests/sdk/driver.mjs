// Drives the JavaScript SDK (`centrifuge` of npm) for tests/sdk/driving.py, which says what the lines mean.
//
// The environment's SDK_NPM is the folder in which npm has installed the packages.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";

const require = createRequire(join(process.env.SDK_NPM, "package.json"));
const JSONCentrifuge = require("centrifuge").Centrifuge;
const ProtobufCentrifuge = require("centrifuge/build/protobuf").Centrifuge;
const WebSocket = require("ws");
const { EventSource } = require("eventsource");

const clients = new Map();

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/** What data is on the wire: JSON as it is, or in Protobuf its bytes. */
class Data {
    constructor(isProtobuf) {
        this.isProtobuf = isProtobuf;
    }

    out(value) {
        if (!this.isProtobuf) return value ?? null;
        return value === undefined ? new Uint8Array() : new TextEncoder().encode(JSON.stringify(value));
    }

    in(value) {
        if (!(value instanceof Uint8Array)) return value;
        return value.length === 0 ? undefined : JSON.parse(new TextDecoder().decode(value));
    }

    info(info) {
        return info && given({
            user: info.user || "",
            client: info.client,
            conn_info: this.in(info.connInfo),
            chan_info: this.in(info.chanInfo),
        });
    }

    context(context) {
        const { data, info, tags, streamPosition, wasRecovering, error, ...rest } = context;
        return given({
            ...rest,
            data: this.in(data),
            info: this.info(info),
            position: streamPosition && { offset: Number(streamPosition.offset), epoch: streamPosition.epoch },
            was_recovering: wasRecovering,
            error: error && { code: error.code ?? 0, message: error.message ?? String(error) },
        });
    }

    publication({ data, offset, info }) {
        return given({ data: this.in(data), offset: offset && Number(offset), info: this.info(info) });
    }
}

/** A `getToken` that gives the tokens one after the other. Where there are none left, it tells so: the SDK asks again. */
function tokenSource(tokens, told) {
    const left = [...tokens];
    return async () => {
        told({ event: "get_token" });
        if (left.length === 0) throw new Error("no token is left");
        return left.shift();
    };
}

function open({ client, endpoint, transports, protobuf, emulation, tokens, data, ...options }) {
    const kind = protobuf ? ProtobufCentrifuge : JSONCentrifuge;
    const form = new Data(protobuf);
    const told = (line) => say({ ...line, of: client });
    const centrifuge = new kind(endpoint ?? transports, given({
        websocket: WebSocket,
        eventsource: EventSource,
        emulationEndpoint: emulation,
        minReconnectDelay: 10,
        maxReconnectDelay: 100,
        getToken: tokens && tokenSource(tokens, told),
        data: data === undefined ? undefined : form.out(data),
        networkEventTarget: new EventTarget(), // Node's own has none of its events
        pageEventTarget: new EventTarget(),
        ...options,
    }));
    for (const event of ["connecting", "connected", "disconnected", "error", "message"]) {
        centrifuge.on(event, (context) => told({ ...form.context(context), event }));
    }
    for (const event of ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave"]) {
        centrifuge.on(event, (context) => told({ ...form.context(context), event: `server_${event}` }));
    }
    clients.set(client, { centrifuge, form, told });
    return {};
}

function subscribe({ centrifuge, form, told }, { channel, tokens, data, joinLeave, ...options }) {
    let subscription = centrifuge.getSubscription(channel);
    if (subscription === null) {
        const toldHere = (line) => told({ channel, ...line });
        subscription = centrifuge.newSubscription(channel, given({
            minResubscribeDelay: 10,
            maxResubscribeDelay: 100,
            getToken: tokens && tokenSource(tokens, toldHere),
            data: data === undefined ? undefined : form.out(data),
            joinLeave: joinLeave ?? true,
            ...options,
        }));
        for (const event of ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"]) {
            subscription.on(event, (context) => toldHere({ ...form.context(context), event }));
        }
    }
    subscription.subscribe();
    return {};
}

const methods = {
    connect: ({ centrifuge }) => centrifuge.connect(),
    disconnect: ({ centrifuge }) => centrifuge.disconnect(),
    forget({ centrifuge }, { client }) {
        centrifuge.removeAllListeners();
        centrifuge.disconnect();
        clients.delete(client);
    },
    subscribe,
    ready: ({ centrifuge }, { channel }) => centrifuge.getSubscription(channel).ready(5000),
    unsubscribe: ({ centrifuge }, { channel }) => centrifuge.getSubscription(channel).unsubscribe(),
    publish: ({ centrifuge, form }, { channel, data }) => centrifuge.publish(channel, form.out(data)),
    send: ({ centrifuge, form }, { data }) => centrifuge.send(form.out(data)),
    async rpc({ centrifuge, form }, { method, data }) {
        const { data: answer } = await centrifuge.rpc(method, form.out(data));
        return form.in(answer);
    },
    async presence({ centrifuge, form }, { channel }) {
        const { clients } = await centrifuge.presence(channel);
        return Object.fromEntries(Object.entries(clients).map(([id, info]) => [id, form.info(info)]));
    },
    async presence_stats({ centrifuge }, { channel }) {
        const { numClients, numUsers } = await centrifuge.presenceStats(channel);
        return { clients: numClients, users: numUsers };
    },
    async history({ centrifuge, form }, { channel, ...options }) {
        const { publications, offset, epoch } = await centrifuge.history(channel, options);
        return { publications: publications.map((each) => form.publication(each)), offset: Number(offset), epoch };
    },
};

async function run({ id, do: name, ...args }) {
    try {
        const result = name === "open" ? open(args) : await methods[name](clients.get(args.client), args);
        say({ id, result: result ?? null });
    } catch (error) {
        say({ id, error: { code: error.code ?? 0, message: error.message ?? String(error) } });
    }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void run(JSON.parse(line)));
lines.on("close", () => process.exit(0));
