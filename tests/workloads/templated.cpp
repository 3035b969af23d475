// A C++ name that must be demangled: orbit::Body<int>::advance(int). Usage: templated SECONDS.

#include <cstdint>
#include <cstdlib>
#include <ctime>

static volatile std::uint64_t sink;

namespace orbit {

template <typename Value> struct Body {
    __attribute__((noinline)) void advance(Value turns) {
        for (Value turn = 0; turn < turns; turn++) {
            sink = sink * 3 + static_cast<std::uint64_t>(turn);
        }
    }
};

} // namespace orbit

int main(int argc, char **argv) {
    std::time_t deadline = std::time(nullptr) + (argc == 2 ? std::atoi(argv[1]) : 1);
    orbit::Body<int> body;
    while (std::time(nullptr) < deadline) {
        body.advance(1000000);
    }
    return 0;
}
