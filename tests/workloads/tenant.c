// One binary, three tenants: `tenant alpha SECONDS` spends its time in tenant_alpha, and so on.
//
// The function says which container a sample truly belongs to, whatever the profiler claims.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile uint64_t sink;

#define TENANT(name)                                                                                                   \
    __attribute__((noinline, noclone)) void tenant_##name(time_t deadline) {                                           \
        while (time(NULL) < deadline) {                                                                                \
            for (uint32_t turn = 0; turn < 1000000; turn++) {                                                          \
                sink = sink * 3 + turn;                                                                                \
            }                                                                                                          \
        }                                                                                                              \
    }

TENANT(alpha)
TENANT(beta)
TENANT(gamma)

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: tenant alpha|beta|gamma SECONDS\n");
        return 2;
    }
    time_t deadline = time(NULL) + atoi(argv[2]);
    if (strcmp(argv[1], "alpha") == 0) {
        tenant_alpha(deadline);
    } else if (strcmp(argv[1], "beta") == 0) {
        tenant_beta(deadline);
    } else {
        tenant_gamma(deadline);
    }
    return 0;
}
