// A second shape beside spin.c: two functions of user code and a good part in the kernel, by copies from /dev/zero.
//
// Usage: mixed SECONDS. Build with frame pointers, leaves too.

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;
static char buffer[1 << 16];

__attribute__((noinline, noclone)) void mixed_hash(void) {
    uint64_t hash = sink;
    for (uint32_t turn = 0; turn < 6000000; turn++) {
        hash = (hash ^ turn) * 1099511628211u;
    }
    sink = hash;
}

__attribute__((noinline, noclone)) void mixed_divide(void) {
    uint64_t value = sink | 1;
    for (uint32_t turn = 1; turn < 1000000; turn++) {
        value += UINT64_MAX / (value | turn);
    }
    sink = value;
}

__attribute__((noinline, noclone)) void mixed_copy(int zero) {
    for (int turn = 0; turn < 4000; turn++) {
        if (read(zero, buffer, sizeof buffer) < 0) {
            exit(1);
        }
    }
}

int main(int argc, char **argv) {
    double seconds = argc == 2 ? atof(argv[1]) : 0;
    int zero = open("/dev/zero", O_RDONLY);
    if (seconds <= 0 || zero < 0) {
        fprintf(stderr, "usage: mixed SECONDS\n");
        return 2;
    }
    time_t deadline = time(NULL) + (time_t)seconds;
    while (time(NULL) < deadline) {
        mixed_hash();
        mixed_divide();
        mixed_copy(zero);
    }
    return 0;
}
