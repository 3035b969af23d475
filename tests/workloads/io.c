// I/O of known counts, by its first argument. Linked statically, so that there are no calls of a loader.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static int sure(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static void *sure_memory(void *memory) {
    if (!memory) exit(1);
    return memory;
}

static void sleep_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int bound(int type, int *port) {
    int sock = sure(socket(AF_INET, type, 0), "socket");
    struct sockaddr_in address = loopback(*port);
    socklen_t length = sizeof address;
    sure(bind(sock, (void *)&address, length), "bind");
    sure(getsockname(sock, (void *)&address, &length), "getsockname");
    *port = ntohs(address.sin_port);
    return sock;
}

static int connected(int type, int port) {
    int sock = sure(socket(AF_INET, type, 0), "socket");
    struct sockaddr_in address = loopback(port);
    sure(connect(sock, (void *)&address, sizeof address), "connect");
    return sock;
}

static void writes(int descriptor, int times, int bytes) {
    for (int i = 0; i < times; i++)
        sure(write(descriptor, buffer, bytes), "write");
}

static int tcp_connection(void) {
    int port = 0, listener = bound(SOCK_STREAM, &port);
    sure(listen(listener, 8), "listen");
    int sock = connected(SOCK_STREAM, port);
    sure(accept(listener, NULL, NULL), "accept");
    return sock;
}

static int terminal(void) {
    int master = sure(posix_openpt(O_RDWR | O_NOCTTY), "posix_openpt");
    sure(grantpt(master), "grantpt");
    sure(unlockpt(master), "unlockpt");
    char name[64];
    sure(-ptsname_r(master, name, sizeof name), "ptsname");
    return sure(open(name, O_RDWR | O_NOCTTY), "pts");
}

static int file_of(const char *directory) {
    char path[4096];
    snprintf(path, sizeof path, "%s/written", directory);
    return sure(open(path, O_RDWR | O_CREAT, 0600), path);
}

// Seven writes of 1 to 9 bytes on one descriptor of each kind; what cannot be written is read.
static void kinds(const char *directory) {
    int pipes[2], pair[2], port = 0;
    sure(pipe(pipes), "pipe");
    sure(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    bound(SOCK_DGRAM, &port);
    uint64_t one = 1;
    int event = sure(eventfd(0, 0), "eventfd");
    for (int i = 0; i < 7; i++)
        sure(write(event, &one, sizeof one), "eventfd");
    writes(file_of(directory), 7, 1);
    writes(pipes[1], 7, 2);
    writes(pair[0], 7, 3);
    writes(connected(SOCK_DGRAM, port), 7, 4);
    writes(tcp_connection(), 7, 5);
    writes(sure(open("/dev/null", O_WRONLY), "/dev/null"), 7, 6);
    writes(terminal(), 7, 7);
    int timer = sure(timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");
    struct itimerspec often = {{0, 1000000}, {0, 1000000}};
    sure(timerfd_settime(timer, 0, &often, NULL), "timerfd_settime");
    for (int i = 0; i < 7; i++)
        sure(read(timer, buffer, 8), "timerfd");
    int poller = sure(epoll_create1(0), "epoll_create1");
    struct epoll_event ready;
    for (int i = 0; i < 7; i++)
        sure(epoll_wait(poller, &ready, 1, 0), "epoll_wait");
    int watch = sure(inotify_init1(0), "inotify_init1");
    sure(inotify_add_watch(watch, directory, IN_OPEN), "inotify_add_watch");
    for (int i = 0; i < 7; i++) {
        int opened = sure(open(directory, O_RDONLY | O_DIRECTORY), directory);
        if (i == 6)
            while (getdents64(opened, buffer, sizeof buffer) > 0);
        sure(read(watch, buffer, sizeof buffer), "inotify");
        close(opened);
    }
}

// The number 100 is one kind after the other; how it changes hands is another each time.
static void reuse(const char *self, const char *directory) {
    int pipes[2], pair[2];
    sure(pipe(pipes), "pipe");
    sure(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    int file = file_of(directory), null = sure(open("/dev/null", O_WRONLY), "/dev/null");
    sure(dup2(file, 100), "dup2");
    writes(100, 5, 1);
    sure(dup2(pipes[1], 100), "dup2");
    writes(100, 6, 1);
    sure(dup3(pair[0], 100, O_CLOEXEC), "dup3");
    writes(100, 4, 1);
    sure(close(100), "close");
    sure(fcntl(null, F_DUPFD, 100), "fcntl");
    writes(100, 3, 1);
    sure(close_range(100, 110, 0), "close_range");
    sure(fcntl(tcp_connection(), F_DUPFD, 100), "fcntl");
    writes(100, 2, 1);
    sure(dup2(file, 100), "dup2");
    sure(fcntl(100, F_SETFD, FD_CLOEXEC), "fcntl");
    writes(100, 8, 1);
    if (fork() == 0) {
        sure(dup2(pipes[1], 100), "dup2");
        writes(100, 7, 1);
        _exit(0);
    }
    wait(NULL);
    writes(100, 9, 1);
    execl(self, self, "reused", NULL);
}

static void reused(void) {
    int pair[2];
    sure(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    sure(fcntl(pair[0], F_DUPFD, 100) - 100, "100 is free");
    writes(100, 10, 1);
}

static void errors(int closed_port, const char *directory) {
    signal(SIGPIPE, SIG_IGN);
    int pipes[2], quiet[2];
    sure(pipe(pipes), "pipe");
    sure(pipe2(quiet, O_NONBLOCK), "pipe2");
    close(pipes[0]);
    struct sockaddr_in nobody = loopback(closed_port);
    for (int i = 0; i < 100; i++) {
        snprintf(buffer, sizeof buffer, "%s/missing-%d", directory, i);
        open(buffer, O_RDONLY);
    }
    for (int i = 0; i < 10; i++) {
        int sock = sure(socket(AF_INET, SOCK_STREAM, 0), "socket");
        connect(sock, (void *)&nobody, sizeof nobody);
        close(sock);
    }
    int full = sure(open("/dev/full", O_WRONLY), "/dev/full");
    for (int i = 0; i < 5; i++)
        if (write(pipes[1], buffer, 1) >= 0 || errno != EPIPE) exit(2);
    for (int i = 0; i < 6; i++)
        if (read(quiet[0], buffer, 1) >= 0 || errno != EAGAIN) exit(3);
    for (int i = 0; i < 3; i++)
        if (read(1000, buffer, 1) >= 0 || errno != EBADF) exit(4);
    for (int i = 0; i < 4; i++)
        if (mkdir(directory, 0700) >= 0 || errno != EEXIST) exit(5);
    for (int i = 0; i < 2; i++)
        if (write(full, buffer, 1) >= 0 || errno != ENOSPC) exit(6);
}

// Reads that each wait for a writer, which begins to sleep when the read is about to begin.
static void waits(int times, int ms) {
    int pipes[2];
    sure(pipe(pipes), "pipe");
    volatile int *begun = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fork() == 0) {
        for (int i = 0; i < times; i++) {
            while (*begun <= i)
                sleep_ms(1);
            sleep_ms(ms);
            writes(pipes[1], 1, 1);
        }
        _exit(0);
    }
    for (int i = 0; i < times; i++) {
        ++*begun;
        sure(read(pipes[0], buffer, 1), "read");
    }
    wait(NULL);
}

// Takes connections and answers each request of `bytes` with as many; prints its port.
static void serve(int times, int bytes) {
    int port = 0, listener = bound(SOCK_STREAM, &port);
    sure(listen(listener, 128), "listen");
    printf("%d\n", port);
    fflush(stdout);
    for (int i = 0; i < times; i++) {
        int sock = sure(accept(listener, NULL, NULL), "accept");
        sure(recv(sock, buffer, bytes, MSG_WAITALL) - bytes, "recv");
        sure(send(sock, buffer, bytes, 0), "send");
        recv(sock, buffer, 1, 0);
        close(sock);
    }
}

// Some of its connections end with a reset.
static void call(int port, int times, int resets, int bytes) {
    for (int i = 0; i < times; i++) {
        int sock = connected(SOCK_STREAM, port);
        sure(send(sock, buffer, bytes, 0), "send");
        sure(recv(sock, buffer, bytes, MSG_WAITALL) - bytes, "recv");
        struct linger at_once = {1, 0};
        if (i < resets)
            sure(setsockopt(sock, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), "SO_LINGER");
        sleep_ms(2);
        close(sock);
    }
}

// A connect that nobody answers, given up after a time: the listener's queue is full. Prints the port.
static __attribute__((noinline, noclone)) void unanswered(int ms) {
    int port = 0, listener = bound(SOCK_STREAM, &port);
    sure(listen(listener, 0), "listen");
    connected(SOCK_STREAM, port);
    int sock = sure(socket(AF_INET, SOCK_STREAM, 0), "socket");
    struct timeval limit = {ms / 1000, ms % 1000 * 1000};
    sure(setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "SO_SNDTIMEO");
    struct sockaddr_in address = loopback(port);
    if (connect(sock, (void *)&address, sizeof address) >= 0 || errno != EINPROGRESS) exit(2);
    close(sock);
    printf("%d\n", port);
}

// Keeps memory and some threads until it is killed.
static void *rest(void *nothing) {
    for (;;) pause();
    return nothing;
}

static void hold(int megabytes, int threads) {
    size_t bytes = (size_t)megabytes << 20;
    memset(sure_memory(malloc(bytes)), 1, bytes);
    pthread_t thread;
    for (int i = 1; i < threads; i++)
        sure(-pthread_create(&thread, NULL, rest, NULL), "pthread_create");
    printf("ready\n");
    fflush(stdout);
    rest(NULL);
}

// Looks at a byte of each page of a file that is not in memory, then prints its own /proc/self/stat.
static void faults(const char *path) {
    int file = sure(open(path, O_RDONLY), path);
    struct stat about;
    sure(fstat(file, &about), path);
    sure(-posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
    volatile char *pages = mmap(NULL, about.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (pages == MAP_FAILED) exit(1);
    // Without the neighbours of what is asked for.
    sure(madvise((void *)pages, about.st_size, MADV_RANDOM), "madvise");
    for (off_t at = 0; at < about.st_size; at += 4096)
        buffer[0] ^= pages[at];
    int own = sure(open("/proc/self/stat", O_RDONLY), "/proc/self/stat");
    int length = sure(read(own, buffer, sizeof buffer), "/proc/self/stat");
    sure(write(1, buffer, length), "stdout");
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    int number[6] = {0};
    for (int i = 2; i < count && i < 8; i++)
        number[i - 2] = atoi(words[i]);
    memset(buffer, 'x', sizeof buffer);
    alarm(60);
    if (!strcmp(what, "kinds")) kinds(words[2]);
    else if (!strcmp(what, "reuse")) reuse(words[0], words[2]);
    else if (!strcmp(what, "reused")) reused();
    else if (!strcmp(what, "errors")) errors(number[0], words[3]);
    else if (!strcmp(what, "waits")) waits(number[0], number[1]);
    else if (!strcmp(what, "serve")) serve(number[0], number[1]);
    else if (!strcmp(what, "call")) call(number[0], number[1], number[2], number[3]);
    else if (!strcmp(what, "unanswered")) unanswered(number[0]);
    else if (!strcmp(what, "faults")) faults(words[2]);
    else if (!strcmp(what, "hold")) hold(number[0], number[1]);
    else return 9;
    return 0;
}
