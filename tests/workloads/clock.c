// Asks for the time, again and again, in the kernel's shared object (vDSO). Usage: clock SECONDS.

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static volatile uint64_t sink;

int main(int argc, char **argv) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t deadline = now.tv_sec + (argc == 2 ? atoi(argv[1]) : 1);
    while (now.tv_sec < deadline) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        sink += (uint64_t)now.tv_nsec;
    }
    return 0;
}
