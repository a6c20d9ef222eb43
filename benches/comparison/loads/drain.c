/* A client that takes HTTP/1.1 answers at the least cost: it asks for one path over many connections and
 * throws the bodies away. Plain bodies are dropped inside the kernel (recv with MSG_TRUNC copies nothing);
 * TLS bodies are decrypted, which is all that OpenSSL allows, and dropped.
 *
 *   drain --port N --path PATH [--header LINE]... [--tls] [--connections N] [--threads N]
 *         (--seconds S | --requests N | --hold) [--idle N --idle-path PATH]
 *
 *   --seconds S    asks again and again, counts what comes within S seconds of the first question
 *   --requests N   asks N times on every connection, one after the other
 *   --hold         reads 4 KiB of an answer on every connection each 100 ms, opens the idle connections
 *                  (one answered question each, then silence), says "holding", and goes on until its
 *                  standard input ends
 *
 * Prints one line of JSON. Any answer other than a whole 200 is an error, and ends the program with 1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_ROOM = 16 << 10, PLAIN_CHUNK = 4 << 20, TLS_CHUNK = 64 << 10, TLS_TURN = 16, HELD_CHUNK = 4 << 10 };

struct connection {
    int fd;
    SSL *tls;
    bool is_queued;      /* waits for its next turn */
    bool is_dry;         /* had nothing more to take at its last turn */
    bool in_body;
    uint64_t left;       /* bytes of the body still to come */
    int asked;           /* questions so far */
    size_t head_length;
    char head[HEAD_ROOM];
    double first_byte;   /* seconds from the first question to the first byte of its answer's body */
    double last_byte;    /* seconds from the first question to the end of the last answer */
};

struct work {
    struct connection *connections;
    int count;
    uint64_t bytes;
    uint64_t answers;
};

static struct {
    int port, connections, threads, requests, idle;
    double seconds;
    bool tls, hold;
    const char *path, *idle_path;
    char headers[4096];
} options = {.connections = 1, .threads = 1};

static SSL_CTX *tls_context;
static double started;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("drain: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int open_socket(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket: %s", strerror(errno));
    if (options.hold) {
        int bytes = 64 << 10; /* a slow reader's machine does not take megabytes in advance */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect: %s", strerror(errno));
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

static void open_connection(struct connection *connection) {
    connection->fd = open_socket();
    if (options.tls) {
        connection->tls = SSL_new(tls_context);
        SSL_set_fd(connection->tls, connection->fd);
        if (SSL_connect(connection->tls) != 1) fail("TLS handshake failed");
    }
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
}

static void ask(struct connection *connection, const char *path) {
    char text[8192];
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", path, options.port,
                          options.headers);
    connection->in_body = false;
    connection->head_length = 0;
    connection->asked++;
    /* A question is smaller than any socket's buffer. */
    ssize_t sent = connection->tls ? SSL_write(connection->tls, text, length)
                                   : send(connection->fd, text, (size_t)length, MSG_NOSIGNAL);
    if (sent != length) fail("the question could not be sent");
}

/* Takes up to `size` bytes, to `buffer` or nowhere. -1: nothing is there for now. */
static ssize_t take(struct connection *connection, void *buffer, size_t size) {
    connection->is_dry = false;
    if (connection->tls) {
        static __thread char nowhere[TLS_CHUNK];
        if (!buffer && size > sizeof nowhere) size = sizeof nowhere;
        int got = SSL_read(connection->tls, buffer ? buffer : nowhere, (int)size);
        if (got > 0) return got;
        int reason = SSL_get_error(connection->tls, got);
        if (reason == SSL_ERROR_WANT_READ) {
            connection->is_dry = true;
            return -1;
        }
        fail("the TLS connection ended early (%d)", reason);
    }
    ssize_t got = recv(connection->fd, buffer, size, buffer ? 0 : MSG_TRUNC);
    if (got > 0) return got;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        connection->is_dry = true;
        return -1;
    }
    fail("the connection ended early: %s", got == 0 ? "closed by the server" : strerror(errno));
}

static uint64_t read_length(char *head) {
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0) fail("unexpected answer: %.200s", head);
    char *field = strcasestr(head, "\r\ncontent-length:");
    if (!field) fail("an answer without Content-Length: %.400s", head);
    return strtoull(field + 17, NULL, 10);
}

/* Reads on in the head; says whether it is complete. `bytes` grows by what of the body came along. */
static bool take_head(struct connection *connection, uint64_t *bytes) {
    size_t room = HEAD_ROOM - 1 - connection->head_length;
    if (room == 0) fail("the head of an answer is too long");
    ssize_t got = take(connection, connection->head + connection->head_length, room);
    if (got < 0) return false;
    connection->head_length += (size_t)got;
    connection->head[connection->head_length] = 0;
    char *end = memmem(connection->head, connection->head_length, "\r\n\r\n", 4);
    if (!end) return false;
    size_t body = connection->head_length - (size_t)(end + 4 - connection->head);
    *end = 0;
    uint64_t length = read_length(connection->head);
    if (body > length) fail("more bytes than Content-Length says");
    connection->left = length - body;
    connection->in_body = true;
    *bytes += body;
    if (connection->first_byte == 0 && body > 0) connection->first_byte = now() - started;
    return true;
}

/* Takes what is there. Says whether the answer has ended. */
static bool advance(struct connection *connection, uint64_t *bytes, size_t chunk) {
    if (!connection->in_body && !take_head(connection, bytes)) return false;
    if (connection->left > 0) {
        size_t size = connection->left < chunk ? (size_t)connection->left : chunk;
        ssize_t got = take(connection, NULL, size);
        if (got < 0) return false;
        if (connection->first_byte == 0) connection->first_byte = now() - started;
        connection->left -= (uint64_t)got;
        *bytes += (uint64_t)got;
    }
    return connection->left == 0;
}

/* One turn of a connection: bounded, so that a fast one does not starve others. Says whether it is through. */
static bool turn(struct connection *connection, struct work *work) {
    int steps = connection->tls ? TLS_TURN : 1;
    for (int step = 0; step < steps; step++) {
        if (advance(connection, &work->bytes, PLAIN_CHUNK)) {
            work->answers++;
            connection->last_byte = now() - started;
            if (options.requests && connection->asked == options.requests) return true;
            ask(connection, options.path);
        } else if (connection->is_dry) {
            break;
        }
    }
    return false;
}

static void *run_thread(void *argument) {
    struct work *work = argument;
    int poll = epoll_create1(EPOLL_CLOEXEC), open = work->count, queued = 0;
    struct connection **queue = calloc((size_t)work->count + 1, sizeof *queue);
    for (int i = 0; i < work->count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &work->connections[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, work->connections[i].fd, &event);
        ask(&work->connections[i], options.path);
    }
    while (open > 0) {
        int wait_ms = queued ? 0 : 1000;
        if (options.seconds > 0) {
            double left = started + options.seconds - now();
            if (left <= 0) break;
            if (!queued && left < 1) wait_ms = (int)(left * 1000) + 1;
        }
        struct epoll_event events[64];
        int count = epoll_wait(poll, events, 64, wait_ms);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection->is_queued) queue[queued++] = connection;
            connection->is_queued = true;
        }
        int still = 0;
        for (int i = 0; i < queued; i++) {
            struct connection *connection = queue[i];
            connection->is_queued = false;
            if (turn(connection, work)) {
                epoll_ctl(poll, EPOLL_CTL_DEL, connection->fd, NULL);
                open--;
            } else if (connection->tls && !connection->is_dry) {
                /* Decrypted or buffered bytes are at hand, of which epoll knows nothing. */
                connection->is_queued = true;
                queue[still++] = connection;
            }
        }
        queued = still;
    }
    free(queue);
    close(poll);
    return NULL;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Asks everything and counts. */
static void transfer(struct connection *connections) {
    int threads = options.threads < options.connections ? options.threads : options.connections;
    struct work *works = calloc((size_t)threads, sizeof *works);
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    for (int i = 0; i < options.connections; i++) open_connection(&connections[i]);
    double cpu = cpu_seconds();
    started = now();
    for (int i = 0; i < threads; i++) {
        int from = options.connections * i / threads, to = options.connections * (i + 1) / threads;
        works[i] = (struct work){.connections = connections + from, .count = to - from};
        if (pthread_create(&ids[i], NULL, run_thread, &works[i]) != 0) fail("no thread");
    }
    uint64_t bytes = 0, answers = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        bytes += works[i].bytes;
        answers += works[i].answers;
    }
    double seconds = now() - started, first = 0, last = 0;
    for (int i = 0; i < options.connections; i++) {
        if (connections[i].first_byte > first) first = connections[i].first_byte;
        if (connections[i].last_byte > last) last = connections[i].last_byte;
    }
    printf("{\"bytes\": %llu, \"answers\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, "
           "\"largest_first_byte_seconds\": %.6f, \"last_byte_seconds\": %.6f}\n",
           (unsigned long long)bytes, (unsigned long long)answers, seconds, cpu_seconds() - cpu, first, last);
    free(works);
    free(ids);
}

static void wait_for(struct connection *connection) {
    struct pollfd readable = {.fd = connection->fd, .events = POLLIN};
    if (poll(&readable, 1, 30000) != 1) fail("no answer within 30 s");
}

/* Keeps slow and idle connections until standard input ends. */
static void hold(struct connection *slow) {
    uint64_t bytes = 0;
    struct connection *idle = calloc((size_t)options.idle + 1, sizeof *idle);
    started = now();
    for (int i = 0; i < options.connections; i++) {
        open_connection(&slow[i]);
        ask(&slow[i], options.path);
    }
    for (int i = 0; i < options.idle; i++) {
        open_connection(&idle[i]);
        ask(&idle[i], options.idle_path);
        do wait_for(&idle[i]);
        while (!advance(&idle[i], &bytes, PLAIN_CHUNK));
    }
    for (int i = 0; i < options.connections; i++)
        while (!slow[i].in_body) {
            wait_for(&slow[i]);
            advance(&slow[i], &bytes, HELD_CHUNK);
        }
    puts("holding");
    fflush(stdout);
    struct pollfd end = {.fd = STDIN_FILENO, .events = POLLIN};
    while (poll(&end, 1, 100) == 0)
        for (int i = 0; i < options.connections; i++) advance(&slow[i], &bytes, HELD_CHUNK);
    printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", (unsigned long long)bytes, now() - started);
    free(idle);
}

static const char *value_of(int *at, int count, char **arguments) {
    if (++*at >= count) fail("%s needs a value", arguments[*at - 1]);
    return arguments[*at];
}

static void read_options(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        const char *name = arguments[i];
        if (strcmp(name, "--tls") == 0) options.tls = true;
        else if (strcmp(name, "--hold") == 0) options.hold = true;
        else if (strcmp(name, "--port") == 0) options.port = atoi(value_of(&i, count, arguments));
        else if (strcmp(name, "--path") == 0) options.path = value_of(&i, count, arguments);
        else if (strcmp(name, "--idle-path") == 0) options.idle_path = value_of(&i, count, arguments);
        else if (strcmp(name, "--connections") == 0) options.connections = atoi(value_of(&i, count, arguments));
        else if (strcmp(name, "--threads") == 0) options.threads = atoi(value_of(&i, count, arguments));
        else if (strcmp(name, "--idle") == 0) options.idle = atoi(value_of(&i, count, arguments));
        else if (strcmp(name, "--requests") == 0) options.requests = atoi(value_of(&i, count, arguments));
        else if (strcmp(name, "--seconds") == 0) options.seconds = atof(value_of(&i, count, arguments));
        else if (strcmp(name, "--header") == 0) {
            size_t used = strlen(options.headers);
            snprintf(options.headers + used, sizeof options.headers - used, "%s\r\n", value_of(&i, count, arguments));
        } else fail("unknown option %s", name);
    }
    if (options.port <= 0 || !options.path || options.connections <= 0 || options.threads <= 0)
        fail("--port and --path are needed");
    if (!options.hold && options.seconds <= 0 && options.requests <= 0)
        fail("one of --seconds, --requests and --hold is needed");
}

static void prepare_tls(void) {
    tls_context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(tls_context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_NONE, NULL); /* loopback, a certificate made a minute ago */
    SSL_CTX_set_read_ahead(tls_context, 1);
    SSL_CTX_set_default_read_buffer_len(tls_context, 256 << 10);
    SSL_CTX_set_mode(tls_context, SSL_MODE_AUTO_RETRY);
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    read_options(count, arguments);
    if (options.tls) prepare_tls();
    struct connection *connections = calloc((size_t)options.connections, sizeof *connections);
    if (!connections) fail("no memory");
    if (options.hold) hold(connections);
    else transfer(connections);
    free(connections);
    return 0;
}
