/* Makes calls on files fail or hang, as the lines of the file $DISK_FAULTS say:
 *
 *     CALL PATH ERRNO SKIP
 *
 * Every CALL (open, write, sync, rename, unlink, read) on a file whose path contains PATH fails with ERRNO, after the
 * first SKIP of them since the line was first met; with ERRNO 0 it hangs until the line is gone. CALL "thread" is the
 * start of a thread, its PATH "/". The file is read at every call, so a test changes it at any time. Loaded before the
 * C library: LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MOST_RULES 16
static struct { char line[200]; int met; } met[MOST_RULES];

static int is_over(const char *line, int skip) {
    for (int i = 0; i < MOST_RULES; i++) {
        if (met[i].line[0] == 0) strncpy(met[i].line, line, sizeof met[i].line - 1);
        if (strcmp(met[i].line, line) == 0) return __sync_add_and_fetch(&met[i].met, 1) > skip;
    }
    return 1;
}

/* The errno of the first line that applies; -1 where none does; 0 where the call has to hang. */
static int look(const char *call, const char *path, int counts) {
    const char *rules = getenv("DISK_FAULTS");
    if (!rules || !path) return -1;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, rules, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    char text[4096];
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length <= 0) return -1;
    text[length] = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) {
        char name[32], part[128];
        int error, skip;
        if (sscanf(line, "%31s %127s %d %d", name, part, &error, &skip) != 4) continue;
        if (strcmp(name, call) || !strstr(path, part)) continue;
        if (!counts || is_over(line, skip)) return error;
    }
    return -1;
}

/* Whether the call fails; errno says how. */
static int fails(const char *call, const char *path) {
    int error = look(call, path, 1);
    while (error == 0) {
        struct timespec pause = {0, 20 * 1000 * 1000};
        nanosleep(&pause, NULL);
        error = look(call, path, 0);
    }
    if (error < 0) return 0;
    errno = error;
    return 1;
}

static int fails_fd(const char *call, int fd) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        va_list arguments;                                             \
        va_start(arguments, flags);                                    \
        mode_t mode = va_arg(arguments, mode_t);                       \
        va_end(arguments);                                             \
        if ((flags & O_CREAT) && fails("create", path)) return -1;     \
        if ((flags & O_ACCMODE) != O_RDONLY && fails("open_to_write", path)) return -1; \
        if (fails("open", path)) return -1;                            \
        return REAL(name)(path, flags, mode);                          \
    }
OPEN(open)
OPEN(open64)

#define ON_FD(type, name, call, parameters, arguments)  \
    type name parameters {                              \
        if (fails_fd(call, fd)) return -1;              \
        return REAL(name) arguments;                    \
    }
ON_FD(ssize_t, write, "write", (int fd, const void *from, size_t count), (fd, from, count))
ON_FD(ssize_t, pwrite, "write", (int fd, const void *from, size_t count, off_t at), (fd, from, count, at))
ON_FD(ssize_t, pwrite64, "write", (int fd, const void *from, size_t count, off64_t at), (fd, from, count, at))
ON_FD(ssize_t, pread, "read", (int fd, void *to, size_t count, off_t at), (fd, to, count, at))
ON_FD(ssize_t, pread64, "read", (int fd, void *to, size_t count, off64_t at), (fd, to, count, at))
ON_FD(int, fsync, "sync", (int fd), (fd))
ON_FD(int, fdatasync, "sync", (int fd), (fd))

int rename(const char *from, const char *to) {
    if (fails("rename", to)) return -1;
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (fails("unlink", path)) return -1;
    return REAL(unlink)(path);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    if (fails("thread", "/")) return errno;
    return REAL(pthread_create)(thread, attributes, start, argument);
}
