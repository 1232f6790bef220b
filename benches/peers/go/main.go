// Go's net package: a goroutine for each connection, buffered both ways. What is written is flushed when no whole
// message is left in the read buffer. Usage: go-net MODE PATH.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
)

const (
	buffer  = 64 << 10
	longest = 1 << 20
	queue   = 1024
)

// message reads the next one, into a slice of its own.
func message(in *bufio.Reader) ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(in, prefix[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(prefix[:])
	if length > longest {
		return nil, errors.New("too long")
	}
	body := make([]byte, length)
	_, err := io.ReadFull(in, body)
	return body, err
}

func send(out *bufio.Writer, body []byte) {
	var prefix [4]byte
	binary.BigEndian.PutUint32(prefix[:], uint32(len(body)))
	out.Write(prefix[:])
	out.Write(body)
}

// more tells whether another whole message has been read already.
func more(in *bufio.Reader) bool {
	if in.Buffered() < 4 {
		return false
	}
	prefix, _ := in.Peek(4)
	return in.Buffered()-4 >= int(binary.BigEndian.Uint32(prefix))
}

func echo(conn net.Conn) {
	defer conn.Close()
	in, out := bufio.NewReaderSize(conn, buffer), bufio.NewWriterSize(conn, buffer)
	for {
		body, err := message(in)
		if err != nil {
			return
		}
		send(out, body)
		if !more(in) && out.Flush() != nil {
			return
		}
	}
}

var members struct {
	sync.Mutex
	queues []chan []byte
}

func member(conn net.Conn) {
	mine := make(chan []byte, queue)
	members.Lock()
	members.queues = append(members.queues, mine)
	members.Unlock()
	go func() {
		out := bufio.NewWriterSize(conn, buffer)
		for body := range mine {
			send(out, body)
			if len(mine) == 0 && out.Flush() != nil {
				return
			}
		}
	}()
	in := bufio.NewReaderSize(conn, buffer)
	for {
		body, err := message(in)
		if err != nil {
			return
		}
		members.Lock()
		for _, each := range members.queues {
			select {
			case each <- body:
			default:
			}
		}
		members.Unlock()
	}
}

// ready tells where it listens. From now on it ends with its standard input.
func ready(address string) {
	fmt.Println(address)
	go func() {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
}

func datagrams() error {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	socket.SetReadBuffer(4 << 20)
	ready(socket.LocalAddr().String())
	datagram := make([]byte, 64<<10)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(datagram)
		if err == nil {
			socket.WriteToUDPAddrPort(datagram[:n], from)
		}
	}
}

func serve(mode, path string) error {
	network, address := "tcp", "127.0.0.1:0"
	if mode == "unix" {
		network, address = "unix", path
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	ready(listener.Addr().String())
	for {
		conn, err := listener.Accept()
		switch {
		case err != nil:
			return err
		case mode == "fan-out":
			go member(conn)
		default:
			go echo(conn)
		}
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	var err error
	if os.Args[1] == "udp" {
		err = datagrams()
	} else {
		err = serve(os.Args[1], os.Args[2])
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
