// Makes code at run time as a JIT does: a loop in anonymous memory, named in /tmp/perf-PID.map.
//
// Usage: runtime SECONDS. The name in the map is jit_busy_loop; the map is removed at the end.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "loop_code.h"

int main(int argc, char **argv) {
    int seconds = argc == 2 ? atoi(argv[1]) : 0;
    void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (seconds <= 0 || code == MAP_FAILED) {
        fprintf(stderr, "usage: runtime SECONDS\n");
        return 2;
    }
    memcpy(code, loop_code, sizeof loop_code);
    __builtin___clear_cache((char *)code, (char *)code + sizeof loop_code);
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    FILE *map = fopen(path, "w");
    fprintf(map, "%lx %zx jit_busy_loop\n", (unsigned long)code, sizeof loop_code);
    fclose(map);
    time_t deadline = time(NULL) + seconds;
    while (time(NULL) < deadline) {
        ((loop_function)code)(1000000);
    }
    unlink(path);
    return 0;
}
