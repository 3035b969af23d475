// Reads a field of a nil pointer, at address 0x18, in main.readNil: the runtime handles SIGSEGV and exits with 2.
package main

import "os"

type object struct {
	before [3]uint64
	value  uint64
}

//go:noinline
func readNil(o *object) uint64 {
	return o.value + 1
}

func main() {
	var nothing *object
	if len(os.Args) > 7 {
		nothing = &object{}
	}
	os.Exit(int(readNil(nothing)))
}
