// The ways a file can go to a socket, side by side: what server::transmit's choice stands on.
//
//   methods serve METHOD CHUNK_BYTES ADDRESS PORT FILE   one thread, epoll; for every byte received, sends the file
//   methods drain ADDRESS PORT CONNECTIONS COUNT BYTES   asks COUNT times in all; prints GiB/s and its own CPU s/GiB
//
// METHOD: sendfile, splice (through a pipe of CHUNK_BYTES), mapped (write from a shared mapping),
// zerocopy (the same with MSG_ZEROCOPY), read (into a buffer of CHUNK_BYTES, then write).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

enum method { SENDFILE, SPLICE, MAPPED, ZEROCOPY, READ };
static const char *const NAMES[] = {"sendfile", "splice", "mapped", "zerocopy", "read"};

struct connection {
    int fd;
    int pipe[2];
    size_t piped;   // bytes that wait in the pipe
    off_t position; // of the next byte to send; at the end where nothing is asked for
    long asked;
    char *buffer;
    size_t begin, end; // what of the buffer was not written yet
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in address_of(const char *host, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("address");
    return address;
}

static ssize_t min(ssize_t a, ssize_t b) { return a < b ? a : b; }

// The completions have to be taken, or the socket's option memory fills up.
static void take_completions(int fd) {
    char control[256];
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
    while (recvmsg(fd, &message, MSG_ERRQUEUE) >= 0) message.msg_controllen = sizeof control;
}

// Sends one chunk. Returns bytes sent, or -1 with EAGAIN.
static ssize_t send_chunk(enum method method, struct connection *to, int file, char *map, off_t size, size_t chunk) {
    size_t length = min(chunk, size - to->position);
    ssize_t sent;
    switch (method) {
    case SENDFILE:
        return sendfile(to->fd, file, &to->position, length);
    case SPLICE:
        if (to->piped == 0) {
            loff_t from = to->position;
            ssize_t got = splice(file, &from, to->pipe[1], NULL, length, SPLICE_F_MOVE);
            if (got <= 0) return got;
            to->piped = got;
        }
        sent = splice(to->pipe[0], NULL, to->fd, NULL, to->piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (sent > 0) to->piped -= sent;
        break;
    case MAPPED:
        sent = send(to->fd, map + to->position, length, MSG_NOSIGNAL);
        break;
    case ZEROCOPY:
        sent = send(to->fd, map + to->position, length, MSG_NOSIGNAL | MSG_ZEROCOPY);
        if (sent < 0 && errno == ENOBUFS) errno = EAGAIN;
        break;
    case READ:
        if (to->begin == to->end) {
            ssize_t got = pread(file, to->buffer, length, to->position);
            if (got <= 0) return got;
            to->begin = 0;
            to->end = got;
        }
        sent = send(to->fd, to->buffer + to->begin, to->end - to->begin, MSG_NOSIGNAL);
        if (sent > 0) to->begin += sent;
        break;
    }
    if (sent > 0) to->position += sent;
    return sent;
}

static int serve(char **arguments) {
    enum method method = SENDFILE;
    while (strcmp(NAMES[method], arguments[0])) {
        if (method == READ) return fprintf(stderr, "no such method: %s\n", arguments[0]), 2;
        method++;
    }
    size_t chunk = strtoul(arguments[1], NULL, 10);
    struct sockaddr_in address = address_of(arguments[2], arguments[3]);
    int file = open(arguments[4], O_RDONLY), one = 1;
    struct stat stat;
    if (file < 0 || fstat(file, &stat)) die("file");
    char *map = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) die("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) {
                connection = calloc(1, sizeof *connection);
                connection->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                connection->position = stat.st_size;
                setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                if (method == ZEROCOPY && setsockopt(connection->fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one))
                    die("SO_ZEROCOPY");
                if (method == SPLICE && (pipe2(connection->pipe, O_NONBLOCK) ||
                                         fcntl(connection->pipe[1], F_SETPIPE_SZ, (int)chunk) < 0))
                    die("pipe");
                if (method == READ) connection->buffer = malloc(chunk);
                struct epoll_event own = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
                epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &own);
                continue;
            }
            if (method == ZEROCOPY) take_completions(connection->fd);
            char requests[64];
            ssize_t got = read(connection->fd, requests, sizeof requests);
            if (got == 0) {
                close(connection->fd); // The program ends with the measurement: the rest is not freed.
                continue;
            }
            if (got > 0) connection->asked += got;
            for (;;) {
                if (connection->position == stat.st_size) {
                    if (connection->asked == 0) break;
                    connection->asked--;
                    connection->position = 0;
                }
                if (send_chunk(method, connection, file, map, stat.st_size, chunk) <= 0) break;
            }
        }
    }
}

static int drain(char **arguments) {
    struct sockaddr_in address = address_of(arguments[0], arguments[1]);
    int connections = atoi(arguments[2]), epoll = epoll_create1(0);
    long count = atol(arguments[3]), asked = 0;
    long long bytes = atoll(arguments[4]), all = bytes * count, received = 0;
    long long *missing = calloc(connections, sizeof *missing);
    int *fds = calloc(connections, sizeof *fds);
    static char buffer[1 << 20];
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < connections && asked < count; i++, asked++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fds[i], (void *)&address, sizeof address) || write(fds[i], "g", 1) != 1) die("connect");
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        missing[i] = bytes;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
    }
    while (received < all) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, 30000);
        if (ready <= 0) return fprintf(stderr, "no byte for 30 s\n"), 1;
        for (int i = 0; i < ready; i++) {
            int which = events[i].data.u32;
            // MSG_TRUNC: the bytes are dropped in the kernel, so that the client is not what is measured.
            ssize_t got = recv(fds[which], buffer, sizeof buffer, MSG_TRUNC);
            if (got == 0) return fprintf(stderr, "the server hung up\n"), 1;
            if (got < 0) continue;
            received += got;
            missing[which] -= got;
            if (missing[which] == 0 && asked < count) {
                asked++;
                missing[which] = bytes;
                if (write(fds[which], "g", 1) != 1) die("write");
            }
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double gib = received / (double)(1 << 30);
    double seconds = end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9;
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("%.3f %.3f\n", gib / seconds, cpu / gib);
    return 0;
}

int main(int count, char **arguments) {
    if (count == 7 && !strcmp(arguments[1], "serve")) return serve(arguments + 2);
    if (count == 7 && !strcmp(arguments[1], "drain")) return drain(arguments + 2);
    fprintf(stderr, "usage: see the beginning of methods.c\n");
    return 2;
}
