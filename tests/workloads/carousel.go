// Spends its time in main.turnCarousel, a leaf without a frame of its own, so that main.main is not on its stacks.
// Usage: carousel SECONDS.
package main

import (
	"os"
	"strconv"
	"time"
)

var sink uint64

//go:noinline
func turnCarousel(turns uint64) {
	state := sink | 1
	for turn := uint64(0); turn < turns; turn++ {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
	}
	sink = state
}

func main() {
	seconds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(2)
	}
	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	for time.Now().Before(deadline) {
		turnCarousel(1000000)
	}
}
