/* The limit: an epoll server that does nothing but WebSocket's framing, for its generator's one key and no other.
 *
 *     minimal PORT      /echo: every message comes back; /room: every message goes to all the others
 *
 * A room's messages of one turn are joined and written once a member, its own left out. It shows what the load
 * generator can do, and how far everybody else is from what the system calls cost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FRAME = 256 * 1024, MAX_TURN = 4 * 1024 * 1024, MAX_MEMBERS = 20000, MAX_SAID = 65536 };

typedef struct {
    int fd, place; /* place: in `members`, -1 for those who are in no room */
    bool open, gone;
    uint8_t *in, *out; /* what is incomplete, what was not taken */
    size_t in_len, out_len;
} Conn;

static int poller;
static Conn *members[MAX_MEMBERS];
static int member_count;
static uint8_t said[MAX_TURN]; /* the frames of this turn */
static struct { Conn *by; size_t from, size; } sayings[MAX_SAID];
static size_t said_len, saying_count;

static void leave(Conn *conn) {
    if (conn->gone) return;
    conn->gone = true;
    if (conn->place >= 0) {
        members[conn->place] = members[--member_count];
        members[conn->place]->place = conn->place;
    }
    close(conn->fd);
    free(conn->in), free(conn->out);
    conn->in = conn->out = NULL; /* the rest stays: events of this turn may still name it */
}

static void put(Conn *conn, const uint8_t *data, size_t size) {
    if (conn->gone) return;
    ssize_t count = 0;
    if (!conn->out_len) {
        count = send(conn->fd, data, size, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN) return leave(conn);
        if (count < 0) count = 0;
    }
    size_t rest = size - (size_t)count;
    if (!rest) return;
    if (conn->out_len + rest > MAX_TURN) return leave(conn);
    conn->out = realloc(conn->out, conn->out_len + rest);
    memcpy(conn->out + conn->out_len, data + count, rest);
    conn->out_len += rest;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = conn};
    epoll_ctl(poller, EPOLL_CTL_MOD, conn->fd, &event);
}

static void writable(Conn *conn) {
    ssize_t count = send(conn->fd, conn->out, conn->out_len, MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN ? (void)0 : leave(conn);
    memmove(conn->out, conn->out + count, conn->out_len - (size_t)count);
    conn->out_len -= (size_t)count;
    if (conn->out_len) return;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    epoll_ctl(poller, EPOLL_CTL_MOD, conn->fd, &event);
}

/* Write the room's turn: to each member all but its own. */
static void broadcast(void) {
    static uint8_t share[MAX_TURN];
    for (int i = member_count - 1; i >= 0; i--) { /* downwards: who leaves is replaced by the last */
        size_t size = 0, from = 0;
        for (size_t j = 0; j < saying_count; j++) {
            if (sayings[j].by != members[i]) continue;
            memcpy(share + size, said + from, sayings[j].from - from);
            size += sayings[j].from - from;
            from = sayings[j].from + sayings[j].size;
        }
        if (!from) put(members[i], said, said_len);
        else {
            memcpy(share + size, said + from, said_len - from);
            size += said_len - from;
            if (size) put(members[i], share, size);
        }
    }
    said_len = saying_count = 0;
}

/* Unmask the frames in `data` and answer them; return the bytes of complete ones. */
static size_t frames(Conn *conn, uint8_t *data, size_t size) {
    static uint8_t answer[MAX_FRAME + 16384];
    size_t at = 0, answered = 0;
    while (size - at >= 6) {
        uint8_t *head = data + at;
        size_t length = head[1] & 127, need = length < 126 ? 2 : length == 126 ? 4 : 10;
        if (size - at < need + 4) break;
        if (need > 2) {
            length = 0;
            for (size_t i = 2; i < need; i++) length = length << 8 | head[i];
        }
        if (length > MAX_FRAME - 64) return leave(conn), size;
        if (size - at < need + 4 + length) break;
        uint8_t *key = head + need, *payload = key + 4;
        at += need + 4 + length;
        bool closing = (head[0] & 15) == 8, room = conn->place >= 0 && !closing;
        if (room && (said_len + need + length > sizeof said || saying_count == MAX_SAID)) broadcast();
        if (!room && answered + need + length > sizeof answer) put(conn, answer, answered), answered = 0;
        uint8_t *to = room ? said + said_len : answer + answered;
        memcpy(to, head, need);
        to[1] &= 127;
        for (size_t i = 0; i < length; i++) to[need + i] = payload[i] ^ key[i & 3];
        if (room) {
            sayings[saying_count].by = conn, sayings[saying_count].from = said_len;
            sayings[saying_count++].size = need + length;
            said_len += need + length;
        } else {
            answered += need + length;
        }
        if (closing) {
            put(conn, answer, answered);
            shutdown(conn->fd, SHUT_WR);
            return size;
        }
    }
    if (answered) put(conn, answer, answered);
    return at;
}

static size_t handshake(Conn *conn, uint8_t *data, size_t size) {
    static const char yes[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    conn->open = true;
    if (size > 10 && !memcmp(data, "GET /room ", 10) && member_count < MAX_MEMBERS) {
        conn->place = member_count;
        members[member_count++] = conn;
    }
    put(conn, (const uint8_t *)yes, sizeof yes - 1);
    return (size_t)(end + 4 - data);
}

static void readable(Conn *conn) {
    static uint8_t buffer[2 * MAX_FRAME];
    if (conn->in_len) memcpy(buffer, conn->in, conn->in_len);
    ssize_t count = recv(conn->fd, buffer + conn->in_len, sizeof buffer - conn->in_len, 0);
    if (count <= 0) return count < 0 && errno == EAGAIN ? (void)0 : leave(conn);
    size_t size = conn->in_len + (size_t)count, used = conn->open ? 0 : handshake(conn, buffer, size);
    if (conn->open && !conn->gone) used += frames(conn, buffer + used, size - used);
    if (conn->gone) return;
    conn->in_len = size - used;
    if (conn->in_len > MAX_FRAME) return leave(conn);
    if (!conn->in_len) return;
    conn->in = realloc(conn->in, MAX_FRAME);
    memcpy(conn->in, buffer + used, conn->in_len);
}

int main(int count, char **arguments) {
    if (count != 2) return fprintf(stderr, "usage: minimal PORT\n"), 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) < 0 || listen(listener, 4096) < 0) return perror("listen"), 1;
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN}, events[1024];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 1024, -1);
        for (int i = 0; i < ready; i++) {
            Conn *conn = events[i].data.ptr;
            if (!conn) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                conn = calloc(1, sizeof *conn);
                conn->fd = fd, conn->place = -1;
                event.events = EPOLLIN, event.data.ptr = conn;
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            if (!conn->gone && events[i].events & EPOLLOUT) writable(conn);
            if (!conn->gone && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(conn);
        }
        if (said_len) broadcast();
    }
}
