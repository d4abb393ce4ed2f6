// Command bench measures what Crossfade costs, from one run on one machine:
// requests a second and latencies of (a) an upstream alone, (b) a bare
// httputil.ReverseProxy in front of it, (c) Crossfade with an RS256 token,
// (d) Crossfade with a legacy bcrypt credential and a companion token in the
// shadow, and (e) Crossfade with a token and a call of 1 KB that is judged by
// the family of its task. Every target is a process of its own. Telemetry is on as in
// production: metrics, one trace in a hundred exported over OTLP, an access
// log to a file.
//
// The targets take turns in rounds and the medians are printed, so that a
// machine that changes its speed changes it for all of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"slices"
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
	conns := flag.Int("conns", 32, "connections")
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
		err = measure(ctx, *rounds, *each, *conns)
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
	rounds  []round
}

func measure(ctx context.Context, rounds int, each time.Duration, conns int) error {
	s, err := newStage(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	targets := s.targets
	for _, t := range targets { // warm up: connections, keys, caches
		if _, err := load(t.addr, t.request, conns, each/2); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for n := range rounds {
		log.Printf("round %d of %d", n+1, rounds)
		for i := range targets {
			t := targets[(i+n)%len(targets)] // nobody always comes first
			before := cpuTime(t.pid)
			r, err := load(t.addr, t.request, conns, each)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			r.cpu = float64(cpuTime(t.pid)-before) / (r.rate * each.Seconds())
			t.rounds = append(t.rounds, r)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	report(targets, rounds, each, conns)
	return nil
}

func report(targets []*target, rounds int, each time.Duration, conns int) {
	fmt.Printf("%s/%s, %d processors (%s), %s, %d connections, medians of %d rounds of %v\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), runtime.Version(), conns, rounds, each)
	fmt.Printf("%-58s %10s %10s %10s %12s\n", "", "requests/s", "p50", "p99", "CPU/request")
	for _, t := range targets {
		fmt.Printf("%-58s %10.0f %10s %10s %12s\n", t.name,
			median(t.rounds, func(r round) float64 { return r.rate }),
			duration(median(t.rounds, func(r round) float64 { return float64(r.p50) })),
			duration(median(t.rounds, func(r round) float64 { return float64(r.p99) })),
			duration(median(t.rounds, func(r round) float64 { return r.cpu })))
	}
	fmt.Println()
	for _, of := range [][2]int{{2, 1}, {3, 1}, {4, 2}} {
		t, base := targets[of[0]], targets[of[1]]
		ratios := make([]round, len(t.rounds))
		for i := range t.rounds {
			ratios[i].rate = t.rounds[i].rate / base.rounds[i].rate
		}
		cpu := func(r round) float64 { return r.cpu }
		fmt.Printf("%s/%s = %.2f    adds %s of processor time to a request\n", t.name[1:2], base.name[1:2],
			median(ratios, func(r round) float64 { return r.rate }),
			duration(median(t.rounds, cpu)-median(base.rounds, cpu)))
	}
}

func median(rounds []round, of func(round) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

func duration(ns float64) string {
	return time.Duration(ns).Round(time.Microsecond).String()
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
