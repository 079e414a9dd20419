/* The load: many WebSocket clients in one process, one thread and one epoll.
 *
 *     load MODE name=value ...      prints "begin" and "end" around the measured time and one line of JSON
 *
 * Modes: echo, fanout, rooms, chat, latency, connect, idle. One file of small functions, plain rather than clever: what the
 * generator costs is in its answer ("load_cpu", the share of a core), and what it can do shows against minimal.c.
 */
#define _GNU_SOURCE
#include "samples.h"
#include "wire.h"

typedef struct {
    const char *mode, *path, *payload;
    const char *hello;      /* what each client says first, where the server's protocol asks for that; see `ready_text` */
    const char *flood_path; /* another one for those who flood, who may be dropped there */
    int port, clients, size, window, rate, quiet, flood;
    int flood_every; /* milliseconds after which one more begins to flood; 0: all from the beginning */
    int own;      /* a room answers its sender, too */
    int members;  /* of each room, in the mode `rooms` */
    int messages; /* send so many (connect: connections), however long that takes, instead of measuring for `seconds` */
    double seconds, warmup;
} Options;

static Options options = {.path = "/", .clients = 1, .size = 64, .window = 1, .rate = 1000, .seconds = 1, .warmup = 0.25};
static Conn *conns;
static int total; /* the connections there are */
static uint8_t *message;
static size_t message_size;
static uint8_t *hello;
static size_t hello_size;
static uint64_t delivered, sent; /* messages */
static bool running = false;     /* whether clients send */

enum { RING = 4096, FLOOD_A_TURN = 32 };

/* How many a room's message goes to. */
static uint64_t listeners(void) { return (uint64_t)(total - 1 + options.own); }

static void say(Conn *conn) {
    if (options.messages && sent == (uint64_t)options.messages) running = false;
    if (!running) return;
    conn->sent++, sent++;
    put(conn, message, message_size);
}

static bool floods(int i) { return i >= options.clients && i < options.clients + options.flood; }

/* The modes: what a client does when messages have come. */

static void on_echo(Conn *conn, int count) {
    while (count-- && running) say(conn);
}

static void on_chat(Conn *conn, int count) {
    (void)count;
    while (conn->got >= conn->target && running) {
        conn->target += listeners();
        say(conn);
    }
}

/* The first member of each room says something again once all the others have heard it: `target` are still to hear. */
static void say_to_room(Conn *first) {
    first->target = (uint64_t)options.members - 1;
    say(first);
}

static void on_rooms(Conn *conn, int count) {
    Conn *first = &conns[(conn - conns) / options.members * options.members];
    first->target -= (uint64_t)count;
    if (!first->target && running) say_to_room(first);
}

static void on_latency(Conn *conn, int count) {
    uint64_t now = nanoseconds();
    if (!conn->due) return; /* the flood's */
    for (uint64_t i = conn->got - (uint64_t)count; i < conn->got; i++) sample(now - conn->due[i % RING]);
}

static void nothing(Conn *conn, int count) { (void)conn, (void)count; }

static void (*on_messages)(Conn *, int) = nothing;

/* The sender keeps `window` broadcasts on their way: it is the slowest member that it waits for. */
static void fanout_turn(void) {
    uint64_t slowest = UINT64_MAX;
    for (int i = 1; i < total; i++)
        if (conns[i].got < slowest) slowest = conns[i].got;
    while (running && sent < slowest + (uint64_t)options.window) say(&conns[0]);
}

/* Send at a fixed rate, whatever comes back: a slow answer does not put off the next question. */
static void latency_turn(void) {
    static uint64_t begin, asked;
    uint64_t now = nanoseconds();
    if (!begin) begin = now;
    while (running) {
        uint64_t due = begin + asked * 1000000000ull / (uint64_t)options.rate;
        if (due > now) break;
        Conn *conn = &conns[asked++ % (uint64_t)options.clients];
        if (conn->sent - conn->got >= RING) fail("%d messages unanswered", RING);
        conn->due[conn->sent % RING] = due;
        say(conn);
    }
    /* Beside them, `flood` clients that send as fast as the server takes it: a few messages a turn, as each costs a
     * system call, and the time in which we fill a socket would be taken for the server's. */
    int flooding = options.flood_every ? (int)((now - begin) / 1000000ull / (uint64_t)options.flood_every) : options.flood;
    for (int i = options.clients; i < options.clients + flooding && floods(i); i++)
        for (int n = 0; n < FLOOD_A_TURN && running && !conns[i].closed && !conns[i].close_seen && conns[i].out_len < message_size; n++) say(&conns[i]);
}

static void nothing_each_turn(void) {}

static void (*each_turn)(void) = nothing_each_turn;

static void readable(Conn *conn) {
    static uint8_t buffer[READ_BYTES];
    for (;;) {
        ssize_t count = wire_recv(conn, buffer, sizeof buffer);
        if (count < 0) return drop(conn);
        if (count == 0) return;
        int messages = parse(conn, buffer, (size_t)count);
        if (messages) {
            conn->got += (uint64_t)messages;
            delivered += (uint64_t)messages;
            on_messages(conn, messages);
        }
        if (!tls || conn->closed) return; /* plain sockets: epoll tells us of the rest */
    }
}

/* One turn of the loop. Milliseconds. */
static void turn(int timeout) {
    static struct epoll_event events[1024];
    int count = epoll_wait(poller, events, 1024, timeout);
    for (int i = 0; i < count; i++) {
        Conn *conn = events[i].data.ptr;
        if (events[i].events & EPOLLOUT && !conn->closed) flush(conn);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !conn->closed) readable(conn);
    }
}

/* Have some clients say their hello, and wait until all of them are ready. */
static void greet(Conn *begin, Conn *end) {
    double limit = seconds_now() + patience;
    for (Conn *conn = begin; conn < end; conn++) put(conn, hello, hello_size);
    for (Conn *conn = begin; conn < end; conn++)
        while (!conn->ready) {
            if (conn->closed || seconds_now() > limit) fail("the server does not answer a client's hello");
            turn(20);
        }
}

/* Open all connections, some at a time so that the server can work while we do, and answer its pings meanwhile. */
static void open_all(int port, const char *path) {
    for (int begin = 0; begin < total; begin += BATCH) {
        int end = begin + BATCH < total ? begin + BATCH : total;
        for (int i = begin; i < end; i++) {
            tcp_connect(&conns[i], port, 1 + (unsigned)i % 200);
            char room[256];
            snprintf(room, sizeof room, "%s/%d", path, options.members ? i / options.members : 0);
            upgrade(&conns[i], port, options.flood_path && floods(i) ? options.flood_path : options.members ? room : path);
        }
        for (int i = begin; i < end; i++) await_upgrade(&conns[i]);
        if (hello) greet(conns + begin, conns + end);
        turn(0);
    }
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void tell(const char *word) {
    printf("%s\n", word);
    fflush(stdout);
}

/* Run until `end`; fail if a client is dropped or nothing moves any more. */
static void run_until(double end, int timeout) {
    double progress = seconds_now();
    uint64_t before = delivered;
    for (;;) {
        turn(timeout);
        each_turn();
        double now = seconds_now();
        if (now >= end) return;
        if (delivered != before) before = delivered, progress = now;
        if (now - progress > patience) fail("the server hangs: no message for %d s", patience);
    }
}

/* Stop sending, and take the `due` messages that have not come yet; return how many did not come at all. */
static long long finish(uint64_t due) {
    running = false;
    for (double end = seconds_now() + 2; delivered < due && seconds_now() < end;) turn(20);
    return (long long)(due - delivered);
}

/* Close every connection as a browser would. */
static void close_all(void) {
    double end = seconds_now() + 2;
    for (int i = 0; i < total; i++) put_close(&conns[i]);
    for (int left = 1; left && seconds_now() < end;) {
        turn(20);
        left = 0;
        for (int i = 0; i < total; i++) {
            if (conns[i].close_seen) drop(&conns[i]);
            left += !conns[i].closed;
        }
    }
}

/* Send `messages` and wait for all that comes of them. For those who count instructions instead of time. */
static void count_only(void) {
    uint64_t each = on_messages == on_chat || each_turn == fanout_turn ? listeners() : 1, all = each * (uint64_t)options.messages;
    double limit = seconds_now() + options.seconds;
    while (delivered < all && seconds_now() < limit) each_turn(), turn(100);
    if (delivered < all) fail("%llu of %llu messages came", (unsigned long long)delivered, (unsigned long long)all);
    close_all();
    printf("{\"messages\": %llu}\n", (unsigned long long)delivered);
}

/* echo, fanout, chat and latency: measure for `seconds`, after a warm-up. */
static void measure(void) {
    bool latency = each_turn == latency_turn;
    /* What a server says to newcomers is not part of the load; nobody may leave in the meantime either. */
    double settled = seconds_now() + 0.1;
    while (seconds_now() < settled) turn(10);
    for (int i = 0; i < total; i++) conns[i].got = 0;
    delivered = 0;
    running = true;
    bool any_size = mark || options.flood_path || !strcmp(options.path + strlen(options.path) - 4, "json");
    expected = any_size ? 0 : (uint64_t)options.size;
    if (on_messages == on_echo)
        for (int i = 0; i < total; i++)
            for (int j = 0; j < options.window; j++) say(&conns[i]);
    if (on_messages == on_chat)
        for (int i = 0; i < total; i++) conns[i].target = listeners(), say(&conns[i]);
    if (on_messages == on_rooms)
        for (int i = 0; i < total; i += options.members) say_to_room(&conns[i]);
    if (options.messages) return count_only();
    run_until(seconds_now() + options.warmup, latency ? 0 : 100);
    tell("begin");
    uint64_t before = delivered, first = samples.count;
    double begin = seconds_now(), cpu = cpu_seconds();
    run_until(begin + options.seconds, latency ? 0 : 100);
    double took = seconds_now() - begin;
    cpu = cpu_seconds() - cpu;
    uint64_t counted = delivered - before;
    tell("end");
    int gone = 0, flooders = 0;
    uint64_t in_vain = 0; /* sent to where it is not answered */
    for (int i = 0; i < total; i++) {
        bool may_go = options.flood_path && floods(i);
        if (may_go) in_vain += conns[i].sent - conns[i].got, flooders += conns[i].closed || conns[i].close_seen;
        else gone += conns[i].closed;
    }
    if (gone) fail("the server dropped %d connections", gone);
    uint64_t each = on_messages == on_chat || each_turn == fanout_turn ? listeners() : on_messages == on_rooms ? (uint64_t)options.members - 1 : 1;
    long long missing = finish(sent * each - in_vain);
    close_all();
    samples.values += first, samples.count -= first;
    double typical = typical_p99();
    sort_samples();
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"load_cpu\": %.3f, \"missing\": %lld, "
           "\"dropped\": %d, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"typical_p99\": %.1f, \"max\": %.1f}\n",
           (unsigned long long)counted, took, (double)counted / took, cpu / took, missing, flooders,
           percentile(.5), percentile(.9), percentile(.99), typical, percentile(1));
}

/* Hold the connections until standard input ends; pings are answered. */
static void idle(void) {
    char byte;
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    tell("ready");
    while (read(0, &byte, 1) != 0) turn(100);
    int left = 0;
    for (int i = 0; i < total; i++) left += !conns[i].closed;
    close_all();
    printf("{\"connections\": %d}\n", left);
}

/* Handshakes: connect, upgrade, close with 1000, wait for the answer to that, and again. */
typedef struct {
    Conn conn;
    uint8_t answer[2048];
    size_t size;
    bool open, leaves;
} Visitor;

static void arrive(Visitor *visitor) {
    static unsigned round;
    memset(visitor, 0, sizeof *visitor);
    tcp_connect(&visitor->conn, options.port, 1 + round++ % 200);
    upgrade(&visitor->conn, options.port, options.path);
    fcntl(visitor->conn.fd, F_SETFL, fcntl(visitor->conn.fd, F_GETFL) | O_NONBLOCK);
    watch(&visitor->conn, EPOLL_CTL_ADD, false);
}

static uint64_t unclean; /* visits that ended without the server's Close frame */

/* Leave once there is nothing more to wait for; return whether the server has said goodbye, too. */
static bool leave(Visitor *visitor) {
    if (!visitor->leaves && (!hello || visitor->conn.ready)) visitor->leaves = true, put_close(&visitor->conn);
    return visitor->conn.close_seen;
}

/* Whether the visit has ended. */
static bool visit(Visitor *visitor) {
    Conn *conn = &visitor->conn;
    ssize_t count = wire_recv(conn, visitor->answer + visitor->size, sizeof visitor->answer - visitor->size);
    if (count < 0) return unclean++, true;
    if (visitor->open) {
        parse(conn, visitor->answer, (size_t)count);
        return leave(visitor);
    }
    visitor->size += (size_t)count;
    uint8_t *rest = after_head(visitor->answer, visitor->size);
    if (!rest) return false;
    visitor->open = true;
    parse(conn, rest, visitor->size - (size_t)(rest - visitor->answer));
    visitor->size = 0;
    if (hello) put(conn, hello, hello_size);
    return leave(visitor);
}

/* Make `messages` visits. For those who count instructions instead of time. */
static void count_visits(void) {
    Visitor *visitors = calloc((size_t)options.clients, sizeof *visitors);
    struct epoll_event events[256];
    int begun = 0, done = 0;
    for (; begun < options.clients && begun < options.messages; begun++) arrive(&visitors[begun]);
    while (done < options.messages) {
        int count = epoll_wait(poller, events, 256, patience * 1000);
        if (!count) fail("the server hangs: no handshake for %d s", patience);
        for (int i = 0; i < count; i++) {
            Visitor *visitor = events[i].data.ptr;
            if (!visit(visitor)) continue;
            drop(&visitor->conn);
            done++;
            if (begun < options.messages) begun++, arrive(visitor);
        }
    }
    if (unclean) fail("%llu connections were not closed cleanly", (unsigned long long)unclean);
    printf("{\"messages\": %d}\n", done);
}

static void handshakes(void) {
    if (options.messages) return count_visits();
    Visitor *visitors = calloc((size_t)options.clients, sizeof *visitors);
    struct epoll_event events[256];
    uint64_t done = 0, counted = 0;
    double begin = seconds_now() + options.warmup, end = begin + options.seconds, cpu = 0, progress = seconds_now();
    bool measuring = false;
    for (int i = 0; i < options.clients; i++) arrive(&visitors[i]);
    for (double now = progress; now < end; now = seconds_now()) {
        if (!measuring && now >= begin) measuring = true, counted = done, cpu = cpu_seconds(), tell("begin");
        int count = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < count; i++) {
            Visitor *visitor = events[i].data.ptr;
            if (!visit(visitor)) continue;
            drop(&visitor->conn);
            arrive(visitor);
            done++, progress = now;
        }
        if (now - progress > patience) fail("the server hangs: no handshake for %d s", patience);
    }
    double took = seconds_now() - begin;
    tell("end");
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"load_cpu\": %.3f, \"missing\": %llu}\n",
           (unsigned long long)(done - counted), took, (double)(done - counted) / took, (cpu_seconds() - cpu) / took, (unsigned long long)unclean);
}

static void read_options(int count, char **arguments) {
    if (count < 2) fail("usage: load MODE name=value ...");
    options.mode = arguments[1];
    for (int i = 2; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value) fail("not name=value: %s", arguments[i]);
        *value++ = 0;
        const char *name = arguments[i];
        struct { const char *name; int *number; } numbers[] = {
            {"port", &options.port},     {"clients", &options.clients}, {"window", &options.window},
            {"rate", &options.rate},     {"quiet", &options.quiet},     {"flood", &options.flood},
            {"own", &options.own},       {"messages", &options.messages}, {"patience", &patience},
            {"flood_every", &options.flood_every}, {"members", &options.members},
        };
        bool known = false;
        for (size_t j = 0; j < sizeof numbers / sizeof *numbers; j++)
            if (!strcmp(name, numbers[j].name)) *numbers[j].number = atoi(value), known = true;
        if (!strcmp(name, "path")) options.path = value;
        else if (!strcmp(name, "flood_path")) options.flood_path = value;
        else if (!strcmp(name, "hello")) options.hello = value;
        else if (!strcmp(name, "ready")) ready_text = value;
        else if (!strcmp(name, "mark")) mark = *value;
        else if (!strcmp(name, "payload")) options.payload = value, options.size = (int)strlen(value);
        else if (!strcmp(name, "seconds")) options.seconds = atof(value);
        else if (!strcmp(name, "warmup")) options.warmup = atof(value);
        else if (!strcmp(name, "tls")) tls = atoi(value);
        else if (!known) fail("unknown option %s", name);
    }
    if (options.clients < 1 || options.clients > 20000 || options.size < 1 || options.size > 128 * 1024 || options.rate < 1 ||
        options.members < 0 || (options.members ? options.clients % options.members || options.members < 2 : !strcmp(options.mode, "rooms")) ||
        options.seconds > 600 || !options.hello != !ready_text || !options.payload || strlen(options.path) < 4)
        fail("an option is out of its range");
}

int main(int count, char **arguments) {
    read_options(count, arguments);
#ifdef TLS
    tls_context = SSL_CTX_new(TLS_client_method()); /* loopback and a certificate of our own: nothing to verify */
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    if (tls) fail("built without TLS");
#endif
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);

    message = malloc((size_t)options.size + 14);
    message_size = build(message, TEXT, options.payload, (size_t)options.size);
    if (options.hello) {
        size_t size = strlen(options.hello);
        hello = malloc(size + 14);
        hello_size = build(hello, TEXT, options.hello, size);
    }

    if (!strcmp(options.mode, "connect")) return handshakes(), 0;
    bool fanout = !strcmp(options.mode, "fanout");
    total = options.clients + options.quiet + options.flood + fanout;
    if (!(conns = calloc((size_t)total, sizeof *conns))) fail("out of memory");
    open_all(options.port, options.path);
    if (!strcmp(options.mode, "idle")) return idle(), 0;
    if (!strcmp(options.mode, "echo")) on_messages = on_echo;
    else if (!strcmp(options.mode, "chat")) on_messages = on_chat;
    else if (fanout) each_turn = fanout_turn;
    else if (!strcmp(options.mode, "rooms")) on_messages = on_rooms;
    else if (!strcmp(options.mode, "latency")) on_messages = on_latency, each_turn = latency_turn;
    else fail("unknown mode %s", options.mode);
    if (each_turn == latency_turn)
        for (int i = 0; i < options.clients; i++) conns[i].due = calloc(RING, sizeof(uint64_t));
    measure();
    return 0;
}
