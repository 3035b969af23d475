// A service whose requests change their threads. Usage: relay PORT NEXT_PORT REDIS_PORT. Asks the next service for the same path
// and Redis with as many keys as the number in the path says, then answers.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
)

type store struct {
	stream net.Conn
	reader *bufio.Reader
}

func ask(stores chan store, number int) error {
	held := <-stores
	defer func() { stores <- held }()
	keys := 1 + number%15
	fmt.Fprintf(held.stream, "*%d\r\n$3\r\nDEL\r\n%s", keys+1, strings.Repeat("$1\r\nk\r\n", keys))
	_, err := held.reader.ReadString('\n')
	return err
}

func main() {
	next := "http://127.0.0.1:" + os.Args[2]
	stores := make(chan store, 8)
	for range cap(stores) {
		stream, err := net.Dial("tcp", "127.0.0.1:"+os.Args[3])
		if err != nil {
			panic(err)
		}
		stores <- store{stream, bufio.NewReader(stream)}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	relay := func(writer http.ResponseWriter, request *http.Request) {
		answer, err := client.Get(next + request.URL.Path)
		if err != nil {
			panic(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		number, _ := strconv.Atoi(path.Base(request.URL.Path))
		if err := ask(stores, number); err != nil {
			panic(err)
		}
		io.WriteString(writer, "done")
	}
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(relay)))
}
