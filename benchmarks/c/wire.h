/* A WebSocket client's wire (RFC 6455), as little of it as a load generator needs: connect, upgrade, send a frame
 * built beforehand, count the messages that come back. Frames are told apart by their headers; payloads are skipped,
 * only their lengths are looked at. Pings are answered. With -DTLS the same runs over OpenSSL.
 *
 * Where a protocol of its own is spoken in the messages, two things in them are looked for: a text by which a client
 * knows that it is ready, and a character that stands once in each message of the protocol that counts.
 */
#ifndef WIRE_H
#define WIRE_H
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
#endif

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { READ_BYTES = 256 * 1024, OUT_BYTES = 256 * 1024, BATCH = 64 };
static int patience = 5; /* seconds without any progress after which a server counts as hanging */

typedef struct {
    int fd;
    bool closed, close_seen, waits; /* waits: EPOLLOUT is asked for */
    bool ready;                     /* `ready_text` has come */
    int matched;                    /* how much of it has */
    uint8_t head[14];               /* the header of the frame that is being read */
    int head_len;
    uint64_t left;                  /* bytes of its payload that have not come yet */
    uint64_t size;                  /* bytes of the message so far */
    uint8_t control[125];
    int control_len;
    char *out;                      /* what the socket did not take */
    size_t out_len;
    uint64_t got, sent, target;     /* messages */
    uint64_t *due;                  /* latency: when the messages in flight were due (a ring), nanoseconds */
#ifdef TLS
    SSL *ssl;
#endif
} Conn;

static int poller = -1;
static bool tls = false;
static uint64_t expected = 0; /* the length every message has to have, 0: any */
static const char *ready_text = NULL;
static char mark = 0; /* count this character, not messages: one may hold several of the protocol's */
#ifdef TLS
static SSL_CTX *tls_context;
#endif

static void fail(const char *format, ...) {
    va_list arguments;
    char text[256];
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("{\"error\": \"%s\"}\n", text);
    exit(1);
}

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static double seconds_now(void) { return (double)nanoseconds() / 1e9; }

/* Bytes, 0 for "not now", -1 for the end. */
static ssize_t wire_recv(Conn *conn, void *buffer, size_t size) {
#ifdef TLS
    if (tls) {
        int count = SSL_read(conn->ssl, buffer, (int)size);
        if (count > 0) return count;
        int error = SSL_get_error(conn->ssl, count);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    ssize_t count = recv(conn->fd, buffer, size, 0);
    if (count > 0) return count;
    return count < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static ssize_t wire_send(Conn *conn, const void *data, size_t size) {
#ifdef TLS
    if (tls) {
        int count = SSL_write(conn->ssl, data, (int)size);
        if (count > 0) return count;
        int error = SSL_get_error(conn->ssl, count);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    ssize_t count = send(conn->fd, data, size, MSG_NOSIGNAL);
    if (count >= 0) return count;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static void watch(Conn *conn, int operation, bool writable) {
    struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.ptr = conn};
    if (epoll_ctl(poller, operation, conn->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
    conn->waits = writable;
}

static void drop(Conn *conn) {
    if (conn->closed) return;
    conn->closed = true;
#ifdef TLS
    if (conn->ssl) SSL_free(conn->ssl), conn->ssl = NULL;
#endif
    close(conn->fd); /* epoll forgets it by itself */
    free(conn->out);
    conn->out = NULL;
    conn->out_len = 0;
}

/* Send what is queued, as far as the socket takes it. */
static void flush(Conn *conn) {
    while (conn->out_len && !conn->closed) {
        ssize_t count = wire_send(conn, conn->out, conn->out_len);
        if (count < 0) return drop(conn);
        if (count == 0) break;
        memmove(conn->out, conn->out + count, conn->out_len - (size_t)count);
        conn->out_len -= (size_t)count;
    }
    if (!conn->closed && conn->waits != (conn->out_len > 0)) watch(conn, EPOLL_CTL_MOD, conn->out_len > 0);
}

static void put(Conn *conn, const void *data, size_t size) {
    if (conn->closed) return;
    size_t begun = 0;
    if (!conn->out_len && !tls) { /* OpenSSL wants a write repeated from the same buffer: there all goes through it */
        ssize_t count = wire_send(conn, data, size);
        if (count < 0) return drop(conn);
        begun = (size_t)count;
        if (begun == size) return;
    }
    if (!conn->out && !(conn->out = malloc(OUT_BYTES))) fail("out of memory");
    if (conn->out_len + size - begun > OUT_BYTES) fail("the server does not read");
    memcpy(conn->out + conn->out_len, (const char *)data + begun, size - begun);
    conn->out_len += size - begun;
    flush(conn);
}

/* Build a client's frame in `frame`; return its length. */
static size_t build(uint8_t *frame, int opcode, const void *payload, size_t size) {
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t at = 0;
    frame[at++] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        frame[at++] = (uint8_t)(0x80 | size);
    } else if (size < 65536) {
        frame[at++] = 0x80 | 126;
        frame[at++] = (uint8_t)(size >> 8);
        frame[at++] = (uint8_t)size;
    } else {
        frame[at++] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8) frame[at++] = (uint8_t)((uint64_t)size >> shift);
    }
    memcpy(frame + at, key, 4);
    at += 4;
    for (size_t i = 0; i < size; i++) frame[at++] = ((const uint8_t *)payload)[i] ^ key[i & 3];
    return at;
}

static void put_close(Conn *conn) {
    uint8_t frame[16], code[2] = {1000 >> 8, 1000 & 255};
    put(conn, frame, build(frame, CLOSE, code, 2));
}

/* The frame in `head` is complete; return how many messages that completes. */
static int frame_end(Conn *conn) {
    int opcode = conn->head[0] & 15, done = 0;
    conn->head_len = 0;
    if (opcode == PING) {
        uint8_t frame[140];
        put(conn, frame, build(frame, PONG, conn->control, (size_t)conn->control_len));
    } else if (opcode == CLOSE) {
        conn->close_seen = true;
    } else if (opcode < 8 && conn->head[0] & 0x80) {
        if (expected && conn->size != expected)
            fail("a message of %llu bytes instead of %llu", (unsigned long long)conn->size, (unsigned long long)expected);
        conn->size = 0;
        done = !mark;
    }
    conn->control_len = 0;
    return done;
}

/* Look for what counts in a part of a message; return how many marks there are. `ready_text` has no two beginnings. */
static int look(Conn *conn, const uint8_t *data, size_t size) {
    int found = 0;
    for (size_t i = 0; ready_text && !conn->ready && i < size; i++) {
        conn->matched = data[i] == (uint8_t)ready_text[conn->matched] ? conn->matched + 1 : data[i] == (uint8_t)ready_text[0];
        conn->ready = !ready_text[conn->matched];
    }
    const uint8_t *end = data + size;
    for (const uint8_t *at = data; mark && (at = memchr(at, mark, (size_t)(end - at))); at++) found++;
    return found;
}

/* Count the messages in what arrived. */
static int parse(Conn *conn, const uint8_t *data, size_t size) {
    int done = 0;
    while (size) {
        if (conn->left) {
            size_t share = conn->left < size ? (size_t)conn->left : size;
            if (conn->head[0] & 8) memcpy(conn->control + conn->control_len, data, share), conn->control_len += (int)share;
            else done += look(conn, data, share);
            conn->left -= share, data += share, size -= share;
            if (!conn->left) done += frame_end(conn);
            continue;
        }
        conn->head[conn->head_len++] = *data++, size--;
        if (conn->head_len < 2) continue;
        int length = conn->head[1] & 127, need = length < 126 ? 2 : length == 126 ? 4 : 10;
        if (conn->head[1] & 128) fail("a masked frame from the server");
        if (conn->head_len < need) continue;
        uint64_t payload = (uint64_t)length;
        if (need > 2) payload = 0;
        for (int i = 2; i < need; i++) payload = payload << 8 | conn->head[i];
        if (conn->head[0] & 8 && payload > 125) fail("a control frame of %llu bytes", (unsigned long long)payload);
        if (!(conn->head[0] & 8)) conn->size += payload;
        conn->left = payload;
        if (!payload) done += frame_end(conn);
    }
    return done;
}

/* Connect from 127.0.0.`host`: one address's ports would run out, being kept for a minute after each connection. */
static void tcp_connect(Conn *conn, int port, unsigned host) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}, own = {.sin_family = AF_INET};
    int one = 1;
    peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    own.sin_addr.s_addr = htonl((INADDR_LOOPBACK & ~255u) | host);
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct timeval limit = {.tv_sec = patience};
    setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(conn->fd, (struct sockaddr *)&own, sizeof own) < 0) fail("bind: %s", strerror(errno));
    if (connect(conn->fd, (struct sockaddr *)&peer, sizeof peer) < 0) fail("connect: %s", strerror(errno));
#ifdef TLS
    if (tls) {
        conn->ssl = SSL_new(tls_context);
        SSL_set_fd(conn->ssl, conn->fd);
        if (SSL_connect(conn->ssl) != 1) fail("the TLS handshake failed");
    }
#endif
}

/* Every client's key is RFC 6455's own example: generator and minimal server need no SHA-1 then. */
static void upgrade(Conn *conn, int port, const char *path) {
    char request[512];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        path, port);
    if (wire_send(conn, request, (size_t)size) != size) fail("the upgrade request was not taken");
}

/* What follows the head of the answer, if that is there; NULL if more has to come. */
static uint8_t *after_head(uint8_t *answer, size_t size) {
    uint8_t *end = memmem(answer, size, "\r\n\r\n", 4);
    if (!end) return NULL;
    if (size < 12 || memcmp(answer, "HTTP/1.1 101", 12)) fail("no upgrade: %.40s", strtok((char *)answer, "\r\n\""));
    return end + 4;
}

static void await_upgrade(Conn *conn) {
    uint8_t answer[8192];
    size_t size = 0;
    for (;;) {
        ssize_t count = wire_recv(conn, answer + size, sizeof answer - size);
        if (count <= 0) fail("no answer to the upgrade");
        size += (size_t)count;
        uint8_t *rest = after_head(answer, size);
        if (rest) {
            conn->got += (uint64_t)parse(conn, rest, size - (size_t)(rest - answer));
            break;
        }
        if (size == sizeof answer) fail("an endless answer to the upgrade");
    }
    fcntl(conn->fd, F_SETFL, fcntl(conn->fd, F_GETFL) | O_NONBLOCK);
    watch(conn, EPOLL_CTL_ADD, false);
}

#endif
