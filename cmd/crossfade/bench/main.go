// Command bench measures what Crossfade costs, from one run on one machine:
// requests a second and latencies of (a) an upstream alone, (b) a bare
// httputil.ReverseProxy in front of it, (c) Crossfade with an RS256 token,
// (d) Crossfade with a legacy bcrypt credential and a companion token in the
// shadow, and (e) Crossfade with a token and a call of 1 KB that is judged by
// the family of its task. Then what a worker waits for that sends one call after
// the other on one kept connection: (f) for Crossfade with a token of its own, (g)
// through `crossfade agent`, which puts such a token there, and (h) through a bare
// proxy, which shows what of that is the way over one more process. At last (i)
// what (d) is with a real Redis, and (j) with the same one stopped meanwhile: no
// request waits for it. Every target but (j) is a process of its own. Telemetry is
// on as in production: metrics, one trace in a hundred exported over OTLP, an
// access log to a file.
//
// The targets take turns in rounds and the medians are printed, so that a
// machine that changes its speed changes it for all of them. Targets are
// reported, met or not; the exit code is about the measurement alone.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"crossfade/gateway"
)

func main() {
	role := flag.String("role", "", "internal: be the upstream or the bare proxy")
	upstream := flag.String("upstream", "", "internal: the upstream of the bare proxy")
	rounds := flag.Int("rounds", 7, "rounds; the medians are printed")
	each := flag.Duration("each", 2*time.Second, "how long each target is loaded in each round")
	conns := flag.Int("conns", 32, "connections of the targets that are measured for throughput")
	format := flag.String("o", "table", "output: table or json")
	flag.Usage = usage
	flag.Parse()
	log.SetFlags(0)
	var err error
	switch *role { // the first two end by the signal that ends them
	case "upstream":
		err = serve(upstreamHandler())
	case "bare":
		err = serve(bareProxy(*upstream))
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		err = run(ctx, plan{rounds: *rounds, each: *each, conns: *conns}, *format)
		stop()
	}
	if err != nil {
		log.Fatalf("bench: %v", err)
	}
}

// upstreamHandler answers as luigid answers a ping.
func upstreamHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		_, _ = fmt.Fprint(w, `{"response": {"rpc_messages": []}}`)
	})
}

// bareProxy has a transport and a buffer pool like Crossfade's, and nothing
// else.
func bareProxy(upstream string) http.Handler {
	target, err := url.Parse(upstream)
	if err != nil {
		log.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
		Transport:  gateway.NewTransport(),
		BufferPool: &buffers{sync.Pool{New: func() any { return new([32 << 10]byte) }}},
	}
}

// buffers lends copy buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	buffer, _ := b.pool.Get().(*[32 << 10]byte)
	return buffer[:]
}

func (b *buffers) Put(buffer []byte) { b.pool.Put((*[32 << 10]byte)(buffer)) }

// target is one of the things that are measured.
type target struct {
	name    string
	addr    string
	pid     int
	request []byte
	conns   int // connections; 0 is as many as the plan says
	// around, if set, is called before the target is loaded, and what it returns
	// afterwards.
	around func() (after func() error, err error)
	rounds []round
}

// plan says how the targets are measured.
type plan struct {
	rounds int
	each   time.Duration // of a target in a round
	conns  int
}

// load measures one target once.
func (p plan) load(t *target, d time.Duration) (_ round, err error) {
	if t.around != nil {
		after, err := t.around()
		if err != nil {
			return round{}, fmt.Errorf("%s: %w", t.name, err)
		}
		defer func() { err = errors.Join(err, after()) }()
	}
	r, err := load(t.addr, t.request, cmp.Or(t.conns, p.conns), d)
	if err != nil {
		return round{}, fmt.Errorf("%s: %w", t.name, err)
	}
	return r, nil
}

func usage() {
	_, _ = fmt.Fprint(flag.CommandLine.Output(), `Measure what Crossfade costs, against a bare proxy, and what its agent adds to a
request, all in one run. Run it from the repository; it builds what it measures.

(a) to (e) are loaded over many connections: compare requests/s, and the processor
time of a request. (f) to (h) get one request after the other over one connection:
g-f is what the agent adds to a request of a worker at p50, the median of the
rounds' differences. Its target is below 100 µs on loopback; it is reported, met or
not. h-f is what a bare proxy adds in its place: on a busy machine, most of both is
the wait for a processor.

(i) and (j) are one process with a real Redis: healthy, and stopped by SIGSTOP while
the load goes on. j/i is what an outage of Redis costs. They need redis-server in
PATH and are left out without it.

`)
	flag.PrintDefaults()
}

func run(ctx context.Context, p plan, format string) error {
	show := table
	switch {
	case format == "json":
		show = writeJSON
	case format != "table":
		return fmt.Errorf("-o %s: use table or json", format)
	}
	if p.rounds < 1 || p.each <= 0 || p.conns < 1 {
		return errors.New("without rounds, time or connections there is nothing to measure")
	}
	targets, err := measure(ctx, p)
	if err != nil {
		return err
	}
	return show(os.Stdout, newReport(targets, p))
}

// measure starts the targets and loads them in turns.
func measure(ctx context.Context, p plan) ([]*target, error) {
	s, err := newStage(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	targets := s.targets
	for _, t := range targets { // warm up: connections, keys, caches
		if _, err := p.load(t, p.each/2); err != nil {
			return nil, err
		}
	}
	for n := range p.rounds {
		log.Printf("round %d of %d", n+1, p.rounds)
		for i := range targets {
			t := targets[(i+n)%len(targets)] // nobody always comes first
			before := cpuTime(t.pid)
			r, err := p.load(t, p.each)
			if err != nil {
				return nil, err
			}
			r.cpu = float64(cpuTime(t.pid)-before) / (r.rate * p.each.Seconds())
			t.rounds = append(t.rounds, r)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return targets, nil
}

// cpuTime is what a process has used of the processors so far, 0 where the
// system does not say (proc(5), fields utime and stime, in hundredths).
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the program's name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// processor is the model as Linux names it.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown model"
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown model"
}
