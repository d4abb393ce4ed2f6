package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"crossfade/gateway/identity"
)

// TrafficOptions say what is replayed, where, and as whom.
type TrafficOptions struct {
	// Capture is the name of a recording, see package captures.
	Capture string
	// BaseURL is the scheduler's or the gateway's URL; a path in it is kept.
	BaseURL string
	// Client sends the requests; one with http.DefaultTransport when nil. It needs no
	// time-out of its own: requests end when Luigi's worker would give up.
	Client *http.Client

	// User and Password are sent as HTTP Basic with every request, whatever
	// account was recorded. Nothing is sent when User is empty.
	User     string
	Password identity.Secret
	// Through gives the URL of the agent beside a worker, which takes the place
	// of BaseURL; "" is none, and so is nil for all. It is asked once in a
	// worker's life, when the worker starts; worker counts the recording's
	// workers from 0 in order of appearance.
	Through func(worker int) (agentURL string)

	// Rename gives a worker's name for one loop; loops count from 0. Names
	// must differ from loop to loop and between replays that run side by side.
	// When nil, the salt in the name is drawn anew and the rest is kept.
	Rename func(loop int, worker string) string
	// Edition makes the tasks of one loop others than those of the rest, as a
	// pipeline's are each night; it must differ like worker's names. Tasks keep
	// their recorded ids when it is nil.
	Edition func(loop int) string
	// Pace stretches the recorded times: 1 is as recorded, 0.1 ten times as
	// fast, 0 as fast as replies come. Loops keep the same rhythm, whether or
	// not a run ended early.
	Pace float64
	// Loops is how often the recording is played; 0 means until the context
	// ends.
	Loops int
	// OnResult, when set, receives every result. Workers run side by side, so
	// it is called from several goroutines, in order for each worker.
	OnResult func(Result)
}

// Result is what became of one request.
type Result struct {
	Loop   int
	Seq    int    // of the recorded exchange
	Worker string // the name in this loop of the worker that sent it
	Method string // of the remote procedure call, or the path of a page
	Status int    // 0 when there was no reply
	// Reason is the header Crossfade-Reason: why the gateway refused, or an agent
	// on its way. A refusal that came through an agent has the status 200, as an
	// unmodified worker needs it.
	Reason identity.Reason
	// Ended reports that a worker would stop here, because of this reply.
	Ended bool
	// Err is set when there was no reply.
	Err error
}

// Traffic replays a recording of workers, each loop as new runs. Run it.
type Traffic struct {
	o       TrafficOptions
	client  *http.Client
	workers []actor
	tasks   []string      // that any of them names
	length  time.Duration // of the recording
}

// NewTraffic reads the recording and checks the options.
func NewTraffic(o TrafficOptions) (*Traffic, error) {
	if o.Pace < 0 {
		return nil, fmt.Errorf("replay %s: the pace %g is negative", o.Capture, o.Pace)
	}
	if o.Loops < 0 {
		return nil, fmt.Errorf("replay %s: %d loops are fewer than none", o.Capture, o.Loops)
	}
	if o.Loops == 0 && o.Pace == 0 && o.OnResult == nil {
		return nil, fmt.Errorf("replay %s: without pace, number of loops and listener this would only make heat", o.Capture)
	}
	if _, err := http.NewRequest(http.MethodGet, o.BaseURL, nil); err != nil || !strings.HasPrefix(o.BaseURL, "http") {
		return nil, fmt.Errorf("replay %s: %q is no base URL", o.Capture, o.BaseURL)
	}
	o.BaseURL = strings.TrimSuffix(o.BaseURL, "/")
	if o.Rename == nil {
		o.Rename = freshSalt
	}
	workers, length, err := actors(o.Capture)
	if err != nil {
		return nil, fmt.Errorf("replay %s: %w", o.Capture, err)
	}
	t := &Traffic{o: o, client: sameClient(o.Client), workers: workers, length: length}
	for _, w := range workers {
		t.tasks = append(t.tasks, taskIDs(w.lines)...)
	}
	return t, nil
}

// Workers returns the recorded names in the order that Through counts in.
func (t *Traffic) Workers() []string {
	names := make([]string, len(t.workers))
	for i, w := range t.workers {
		names[i] = w.name
	}
	return names
}

// Requests is how many requests a loop has when no run ends early.
func (t *Traffic) Requests() int {
	n := 0
	for _, w := range t.workers {
		n += len(w.lines)
	}
	return n
}

// Run replays until the context ends or the loops are done, and waits for its
// workers and the requests under way. The end of the context is no error; a reply is never one.
func (t *Traffic) Run(ctx context.Context) error {
	for loop := 0; t.o.Loops == 0 || loop < t.o.Loops; loop++ {
		end := time.Now().Add(t.at(t.length))
		var wg sync.WaitGroup
		failures := make([]error, len(t.workers))
		for i := range t.workers {
			wg.Go(func() { failures[i] = t.play(ctx, loop, i) })
		}
		wg.Wait()
		if err := errors.Join(failures...); err != nil {
			return fmt.Errorf("replay %s: %w", t.o.Capture, err)
		}
		// A team that is refused at once must not come back at once.
		if !sleepUntil(ctx, end) {
			return nil
		}
	}
	return nil
}

// play is one worker's run.
func (t *Traffic) play(ctx context.Context, loop, index int) error {
	w := t.workers[index]
	name := w.name
	if name != "" {
		name = t.o.Rename(loop, name)
	}
	start := time.Now()
	base := t.o.BaseURL
	if t.o.Through != nil {
		base = cmp.Or(strings.TrimSuffix(t.o.Through(index), "/"), base)
	}
	edition := ""
	if t.o.Edition != nil {
		edition = t.o.Edition(loop)
	}
	rename := renamingAll(w.name, name, t.tasks, edition)
	for _, line := range w.lines {
		if !sleepUntil(ctx, start.Add(t.at(line.offset))) {
			return nil
		}
		request, err := t.request(ctx, base, line, rename)
		if err != nil {
			return fmt.Errorf("exchange %d: %w", line.seq, err)
		}
		result := t.send(request, line)
		result.Loop, result.Worker = loop, name
		t.report(result)
		if result.Ended {
			return nil
		}
	}
	return nil
}

func (t *Traffic) report(r Result) {
	if t.o.OnResult != nil {
		t.o.OnResult(r)
	}
}

// at scales a recorded time.
func (t *Traffic) at(recorded time.Duration) time.Duration {
	return time.Duration(float64(recorded) * t.o.Pace)
}

// sleepUntil waits, and reports whether the context still holds.
func sleepUntil(ctx context.Context, when time.Time) bool {
	wait := time.Until(when)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var salt = regexp.MustCompile(`salt=\d+`)

// freshSalt draws the random part of a worker's name (luigi.worker.Worker:
// "Worker(salt=8866115692, workers=2, …)") the way Luigi does.
func freshSalt(_ int, worker string) string {
	drawn := fmt.Sprintf("salt=%010d", rand.Int64N(10_000_000_000))
	if !salt.MatchString(worker) {
		return worker + " " + drawn
	}
	return salt.ReplaceAllString(worker, drawn)
}
