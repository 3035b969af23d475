// Burns processor time with a known shape: spin_seventy, spin_twenty and spin_ten take 70, 20 and 10 %.
//
// The shares are exact by construction: all run the same loop and only the number of turns differs. A round takes
// about 100 ms, some ten samples: so each round is sampled evenly, and the error of a measurement is far below what
// as many random samples would have. Usage: spin SECONDS. Build with frame pointers, leaves too.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TURNS_PER_PERCENT 400000u

static volatile uint64_t sink;

// gcc leaves out the frame of a leaf that needs no stack, whatever its flags say; this asks for it.
#define KEEP_FRAME() __asm__ volatile("" : : "r"(__builtin_frame_address(0)))

// A macro, because a shared function would be the leaf that a profiler sees instead of the three names.
#define BURN(percent)                                                                                                  \
    do {                                                                                                               \
        KEEP_FRAME();                                                                                                  \
        uint64_t state = sink | 1;                                                                                     \
        for (uint32_t turn = 0; turn < (percent) * TURNS_PER_PERCENT; turn++) {                                        \
            state ^= state << 13;                                                                                      \
            state ^= state >> 7;                                                                                       \
            state ^= state << 17;                                                                                      \
        }                                                                                                              \
        sink = state;                                                                                                  \
    } while (0)

__attribute__((noinline, noclone)) void spin_seventy(void) { BURN(70); }
__attribute__((noinline, noclone)) void spin_twenty(void) { BURN(20); }
__attribute__((noinline, noclone)) void spin_ten(void) { BURN(10); }

__attribute__((noinline, noclone)) void spin_round(void) {
    spin_seventy();
    spin_twenty();
    spin_ten();
}

static double monotonic_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    double seconds = argc == 2 ? atof(argv[1]) : 0;
    if (seconds <= 0) {
        fprintf(stderr, "usage: spin SECONDS\n");
        return 2;
    }
    double deadline = monotonic_seconds() + seconds;
    while (monotonic_seconds() < deadline) {
        spin_round();
    }
    return 0;
}
