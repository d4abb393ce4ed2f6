package main

import "runtime"

// oneProcessor lets this process run on one processor until restore is called,
// unless GOMAXPROCS says how many. On its way through the agent a request is
// handed from goroutine to goroutine several times, with some microseconds of
// work in between: waking a thread of another processor for each costs a worker
// more than they save. One processor passes on thousands of requests a second.
func (p *program) oneProcessor() (restore func()) {
	if p.getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}
