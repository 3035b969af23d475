// Its time goes into inlined_blend, which the compiler puts into holder_loop. Usage: inlined SECONDS. Build with -g.

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static volatile uint64_t sink;

static inline __attribute__((always_inline)) uint64_t inlined_blend(uint64_t state) {
    for (uint32_t turn = 0; turn < 1000000; turn++) { // first line of the loop
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17; // last line of the loop
    }
    return state;
}

__attribute__((noinline, noclone)) void holder_loop(time_t deadline) {
    while (time(NULL) < deadline) {
        sink = inlined_blend(sink | 1);
    }
}

int main(int argc, char **argv) {
    holder_loop(time(NULL) + (argc == 2 ? atoi(argv[1]) : 1));
    return 0;
}
