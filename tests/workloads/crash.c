// Dies in one of many ways, in a function named after the way: `crash MODE [NUMBER] [anything else]`.
//
// `crash chain NUMBER ONE OTHER LAST` runs NUMBER programs one after the other in its own process, and then `LAST segv`.
//
// The stack is always main, outer, crash_MODE; the plain null read is in crash_here. No core file is left behind, and
// every mode ends by itself within a minute. Exit code 77: this machine cannot do it.

#define _GNU_SOURCE

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FRAME __attribute__((noinline, noclone))

struct object {
    char before[0x18];
    volatile int value;
};

// Where mode `bus` maps its file: a known fault address.
#define BUS_ADDRESS ((void *)0x10000000)

static struct object *volatile null_object;
static void (*volatile null_function)(void);
static volatile int sink;
static volatile int zero;
static int number;
static char **arguments;

static void sleep_ms(long ms) {
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
}

#ifdef SHIFTED
// Another build: every address that follows is another one, and so is every frame's size.
FRAME void padding(void) {
    __asm__ volatile(".skip 4096, 0x90");
}
#endif

FRAME void crash_here(void) {
    sink += null_object->value;
}

static inline __attribute__((always_inline)) void crash_inlined(void) {
    sink += null_object->value;
}

FRAME void crash_holder(void) {
    sink += 1;
    crash_inlined();
}

FRAME void crash_null_call(void) {
    null_function();
    sink += 1;
}

FRAME void crash_stack_overflow(void) {
    volatile char room[512];
    room[sink & 511] = (char)sink;
    sink += 1;
    if (sink != 0) {
        crash_stack_overflow();
    }
    sink += room[0];
}

FRAME void crash_double_free(void) {
    char *volatile memory = malloc(40);
    char *volatile again = memory;
    free(memory);
    free(again);
    sink += 1;
}

FRAME void crash_abort(void) {
    abort();
}

FRAME void crash_assert(void) {
    assert(zero == 1 && "the keel holds");
    sink += 1;
}

FRAME void crash_bus(void) {
    char path[] = "/tmp/kansoku-crash-bus-XXXXXX";
    int file = mkstemp(path);
    if (file < 0 || unlink(path) != 0 || ftruncate(file, 4096) != 0) {
        exit(77);
    }
    struct object *object = mmap(BUS_ADDRESS, 4096, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, file, 0);
    if (object != BUS_ADDRESS || ftruncate(file, 0) != 0) {
        exit(77);
    }
    sink += object->value;
}

FRAME void crash_sys(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        exit(77);
    }
#ifdef __x86_64__
    long result = __NR_getppid;
    __asm__ volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
    sink += (int)result;
#else
    sink += (int)syscall(__NR_getppid);
#endif
}

FRAME void crash_fpe(void) {
    sink = number / zero;
}

FRAME void crash_xcpu(void) {
    struct rlimit limit = {1, 30};
    setrlimit(RLIMIT_CPU, &limit);
    for (;;) {
        sink += 1;
    }
}

FRAME void crash_xfsz(void) {
    char path[] = "/tmp/kansoku-crash-xfsz-XXXXXX";
    int file = mkstemp(path);
    struct rlimit limit = {16, 16};
    if (file < 0 || unlink(path) != 0 || setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        exit(77);
    }
    char block[64] = {0};
#ifdef __x86_64__
    for (int turn = 0; turn < 2; turn++) {
        long result = __NR_write;
        __asm__ volatile("syscall"
                         : "+a"(result)
                         : "D"((long)file), "S"(block), "d"(sizeof block)
                         : "rcx", "r11", "memory");
        sink += (int)result;
    }
#else
    for (int turn = 0; turn < 2; turn++) {
        sink += (int)write(file, block, sizeof block);
    }
#endif
}

#ifdef __x86_64__
// The signal of abort() without the C library between it and the function.
FRAME void crash_tgkill(void) {
    long process = getpid();
    long thread = gettid();
    long result = __NR_tgkill;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(process), "S"(thread), "d"((long)SIGABRT)
                     : "rcx", "r11", "memory");
    sink += (int)result;
}

FRAME void crash_misaligned(void) {
    static _Alignas(64) char buffer[64];
    char *volatile address = buffer + 1;
    char *odd = address;
    int value;
    // The flag AC makes the processor check; it goes in the same breath as the read, before anything else runs.
    __asm__ volatile("pushfq\n\torl $0x40000, (%%rsp)\n\tpopfq\n\tmovl (%1), %0" : "=r"(value) : "r"(odd) : "cc", "memory");
    sink += value;
}

FRAME void crash_ill(void) {
    __asm__ volatile("ud2");
    sink += 1;
}

FRAME void crash_trap(void) {
    __asm__ volatile("int3");
    sink += 1;
}

FRAME void crash_jit(void) {
    // push rbp; mov rbp, rsp; xor eax, eax; mov eax, [rax + 0x18]; pop rbp; ret
    static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x31, 0xc0, 0x8b, 0x40, 0x18, 0x5d, 0xc3};
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        exit(77);
    }
    memcpy(memory, code, sizeof code);
    ((void (*)(void))memory)();
    sink += 1;
}
#endif

// Garbage in the saved frame pointer, the return address and all that follows, then a null read.
FRAME void crash_corrupt(void) {
    volatile uintptr_t *frame = __builtin_frame_address(0);
    for (int word = 0; word < 64; word++) {
        frame[word] = (uintptr_t)0x4141414141414141 + (uintptr_t)word * 0x1003;
    }
    sink += null_object->value;
}

static void *sleeper(void *is_named) {
    if (is_named != NULL) {
        pthread_setname_np(pthread_self(), "rower");
    }
    sleep(50);
    return NULL;
}

static int start_threads(int count, void *is_named) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384 + 4096);
    for (int index = 0; index < count; index++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, sleeper, is_named) != 0) {
            return 0;
        }
    }
    return 1;
}

FRAME void crash_threads(void) {
    if (!start_threads(number > 0 ? number : 20, &number)) {
        _exit(77);
    }
    // Every one has its name by then.
    sleep_ms(200);
    sink += null_object->value;
}

FRAME void crash_many_threads(void) {
    if (!start_threads(number > 0 ? number : 10000, NULL)) {
        _exit(77);
    }
    abort();
}

static void *culprit(void *unused) {
    (void)unused;
    pthread_setname_np(pthread_self(), "culprit");
    crash_here();
    return NULL;
}

FRAME void crash_in_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, culprit, NULL);
    pthread_join(thread, NULL);
}

// Twenty lines or NUMBER of 64 bytes each, then two secrets, then a null read.
FRAME void crash_stderr(void) {
    int lines = number > 0 ? number : 20;
    for (int line = 1; line <= lines; line++) {
        char text[80];
        int length = snprintf(text, sizeof text, "line %08d %049d\n", line, 0);
        sink += (int)write(2, text, (size_t)length);
    }
    static const char secrets[] = "exec: mysql --password=hunter2 --user=app\n"
                                  "> Authorization: Bearer abcdef0123456789.ghi-jkl\n"
                                  "ticket=KAISOU-4711 opened\n";
    sink += (int)write(2, secrets, sizeof secrets - 1);
    sink += null_object->value;
}

// NUMBER children, about a thousand a second, each a null read.
FRAME void crash_storm(void) {
    int left = number;
    for (int child = 0; child < number; child++) {
        pid_t pid = fork();
        if (pid < 0) {
            exit(78);
        }
        if (pid == 0) {
            crash_here();
            _exit(79);
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {
            left--;
        }
        struct timespec rest = {0, 600000};
        nanosleep(&rest, NULL);
    }
    int status;
    while (left > 0 && waitpid(-1, &status, 0) > 0) {
        left--;
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV) {
            exit(80);
        }
    }
    exit(left);
}

static sigjmp_buf back;

static void jump_back(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

FRAME void crash_handled(void) {
    struct sigaction action = {.sa_handler = jump_back};
    sigaction(SIGSEGV, &action, NULL);
    static volatile int turn;
    for (turn = 0; turn < 1000; turn++) {
        if (sigsetjmp(back, 1) == 0) {
            sink += null_object->value;
            exit(81);
        }
    }
    exit(0);
}

FRAME void crash_sigterm_ignored(void) {
    signal(SIGTERM, SIG_IGN);
    for (;;) {
        pause();
    }
}

FRAME void crash_wait(void) {
    // A shell that runs the tests in the background has them ignored.
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    for (;;) {
        pause();
    }
}

FRAME void crash_brief(void) {
    sleep_ms(100);
    crash_here();
    sink += 1;
}

FRAME void crash_exit(void) {
    sleep_ms(300);
    exit(number);
}

// Takes anonymous memory, NUMBER MiB, as a victim that the OOM killer prefers.
FRAME void crash_oom_main(void) {
    int file = open("/proc/self/oom_score_adj", O_WRONLY);
    sink += (int)write(file, "1000", 4);
    close(file);
    for (int megabyte = 0; megabyte < number; megabyte++) {
        char *memory = malloc(1 << 20);
        if (memory == NULL) {
            exit(82);
        }
        for (int offset = 0; offset < 1 << 20; offset += 4096) {
            ((volatile char *)memory)[offset] = 1;
        }
    }
    exit(83);
}

// The same in a child; the parent survives it.
FRAME void crash_oom(void) {
    pid_t child = fork();
    if (child == 0) {
        crash_oom_main();
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        exit(84);
    }
    sleep_ms(300);
    exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : 85);
}

FRAME void crash_chain(void) {
    char left[16];
    snprintf(left, sizeof left, "%d", number - 1);
    char **names = arguments + 3;
    if (number > 0) {
        execl(names[number % 2], names[number % 2], "chain", left, names[0], names[1], names[2], (char *)NULL);
    } else {
        execl(names[2], names[2], "segv", (char *)NULL);
    }
    exit(86);
}

static const struct {
    const char *name;
    void (*crash)(void);
} modes[] = {
    {"segv", crash_here},
    {"inlined", crash_holder},
    {"null_call", crash_null_call},
    {"stack_overflow", crash_stack_overflow},
    {"double_free", crash_double_free},
    {"abort", crash_abort},
    {"assert", crash_assert},
    {"bus", crash_bus},
    {"sys", crash_sys},
    {"fpe", crash_fpe},
    {"xcpu", crash_xcpu},
    {"xfsz", crash_xfsz},
#ifdef __x86_64__
    {"tgkill", crash_tgkill},
    {"misaligned", crash_misaligned},
    {"ill", crash_ill},
    {"trap", crash_trap},
    {"jit", crash_jit},
#endif
    {"corrupt", crash_corrupt},
    {"threads", crash_threads},
    {"many_threads", crash_many_threads},
    {"in_thread", crash_in_thread},
    {"stderr", crash_stderr},
    {"storm", crash_storm},
    {"handled", crash_handled},
    {"sigterm_ignored", crash_sigterm_ignored},
    {"wait", crash_wait},
    {"brief", crash_brief},
    {"exit", crash_exit},
    {"chain", crash_chain},
    {"oom", crash_oom},
    {"oom_main", crash_oom_main},
};

FRAME void outer(void (*crash)(void)) {
    crash();
    sink += 1;
}

int main(int argc, char **argv) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    alarm(60);
    arguments = argv;
    number = argc > 2 ? atoi(argv[2]) : 0;
    for (size_t index = 0; argc > 1 && index < sizeof modes / sizeof modes[0]; index++) {
        if (strcmp(argv[1], modes[index].name) == 0) {
            outer(modes[index].crash);
            return 0;
        }
    }
    fprintf(stderr, "usage: crash MODE [NUMBER]\n");
    return 2;
}
