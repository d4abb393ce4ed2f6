package rollouttest

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestAPortIsKeptForWhoNamesIt(t *testing.T) {
	address := Unused(t)
	for range 2 { // left, and taken again
		if conn, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				_ = conn.Close()
			}
			t.Errorf("while nobody listens: %v", err)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Errorf("while somebody listens: %v", err)
		} else {
			_ = conn.Close()
		}
		_ = l.Close()
	}
	if other := Unused(t); other == address {
		t.Errorf("%s is given out twice", address)
	}
}
