package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// round is what one target did in one round.
type round struct {
	rate     float64 // requests a second
	p50, p99 time.Duration
	cpu      float64 // nanoseconds that the target used for a request
}

// load sends the same request over conns kept-alive connections for d and
// measures each reply. It speaks just enough HTTP/1.1 to cost little itself:
// what it spends on two cores is missing from the target.
func load(addr string, request []byte, conns int, d time.Duration) (round, error) {
	var mu sync.Mutex
	var all []time.Duration
	var errs []error
	var wait sync.WaitGroup
	begin := time.Now()
	end := begin.Add(d)
	for range conns {
		wait.Go(func() {
			times, err := one(addr, request, end)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, times...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wait.Wait()
	took := time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return round{}, err
	}
	if len(all) == 0 {
		return round{}, errors.New("no request was answered")
	}
	slices.Sort(all)
	return round{
		rate: float64(len(all)) / took.Seconds(),
		p50:  all[len(all)/2],
		p99:  all[len(all)*99/100],
	}, nil
}

// one is the life of one connection.
func one(addr string, request []byte, end time.Time) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReaderSize(conn, 4<<10)
	times := make([]time.Duration, 0, 1<<14)
	for {
		start := time.Now()
		if start.After(end) {
			return times, nil
		}
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		if err := reply(r); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
}

var contentLength = []byte("Content-Length: ")

// reply reads one reply with a Content-Length, and insists on a 200.
func reply(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the target answered %q", bytes.TrimSpace(line))
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if bytes.HasPrefix(line, []byte("Crossfade-Reason: ")) {
			return fmt.Errorf("the request was refused: %s", line)
		}
		if value, ok := bytes.CutPrefix(line, contentLength); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("a reply has no Content-Length")
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}
