package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// agentTarget is what the agent may add to a request, at p50 on loopback.
const agentTarget = 100 * time.Microsecond

// report is what is printed: medians over the rounds. Times are in microseconds.
type report struct {
	Machine     string      `json:"machine"`
	Go          string      `json:"go"`
	Connections int         `json:"connections"`
	Rounds      int         `json:"rounds"`
	Seconds     float64     `json:"seconds"` // of a target in a round
	Targets     []measured  `json:"targets"`
	Ratios      []ratio     `json:"ratios"`
	Agent       agentReport `json:"agent"`
}

// measured is one target.
type measured struct {
	Name string  `json:"name"` // begins with its letter in parentheses
	Rate float64 `json:"requests_per_second"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	CPU  float64 `json:"cpu_us"` // that its process used for a request; 0 if unknown
}

// ratio compares the throughput of two targets round by round.
type ratio struct {
	Of      string  `json:"of"` // such as c/b
	Rate    float64 `json:"throughput"`
	AddsCPU float64 `json:"adds_cpu_us"`
}

// agentReport compares a worker with an agent and one without.
type agentReport struct {
	// Added is the median of the differences round by round, Bare the same of a
	// bare proxy in the agent's place.
	Added  float64 `json:"added_p50_us"`
	Bare   float64 `json:"bare_proxy_added_p50_us"`
	Target float64 `json:"target_us"`
	Met    bool    `json:"met"`
}

// Where the targets stand that are compared.
const (
	bare = iota + 1
	withToken
	withShadow
	withTask
	direct
	throughAgent
	throughBare
	withRedis // this and the next one may be missing
	withoutRedis
)

func newReport(targets []*target, p plan) report {
	r := report{
		Machine:     fmt.Sprintf("%s/%s, %d processors (%s)", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor()),
		Go:          runtime.Version(),
		Connections: p.conns, Rounds: p.rounds, Seconds: p.each.Seconds(),
	}
	for _, t := range targets {
		r.Targets = append(r.Targets, measured{
			Name: t.name,
			Rate: median(t.rounds, func(r round) float64 { return r.rate }),
			P50:  median(t.rounds, func(r round) float64 { return micros(r.p50) }),
			P99:  median(t.rounds, func(r round) float64 { return micros(r.p99) }),
			CPU:  median(t.rounds, func(r round) float64 { return r.cpu / 1e3 }),
		})
	}
	pairs := [][2]int{{withToken, bare}, {withShadow, bare}, {withTask, withToken}}
	if len(targets) > withoutRedis {
		pairs = append(pairs, [2]int{withoutRedis, withRedis})
	}
	for _, of := range pairs {
		t, base := targets[of[0]], targets[of[1]]
		rates := make([]float64, len(t.rounds))
		for i := range t.rounds {
			rates[i] = t.rounds[i].rate / base.rounds[i].rate
		}
		r.Ratios = append(r.Ratios, ratio{
			Of: t.name[1:2] + "/" + base.name[1:2], Rate: middle(rates),
			AddsCPU: r.Targets[of[0]].CPU - r.Targets[of[1]].CPU,
		})
	}
	added := func(through int) float64 {
		differences := make([]float64, p.rounds)
		for i := range differences {
			differences[i] = micros(targets[through].rounds[i].p50 - targets[direct].rounds[i].p50)
		}
		return middle(differences)
	}
	r.Agent = agentReport{Added: added(throughAgent), Bare: added(throughBare), Target: micros(agentTarget)}
	r.Agent.Met = r.Agent.Added < r.Agent.Target
	return r
}

// table writes a report for people.
func table(w io.Writer, r report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %d connections, medians of %d rounds of %gs\n\n",
		r.Machine, r.Go, r.Connections, r.Rounds, r.Seconds)
	fmt.Fprintf(&b, "%-58s %10s %10s %10s %12s\n", "", "requests/s", "p50", "p99", "CPU/request")
	for _, t := range r.Targets {
		fmt.Fprintf(&b, "%-58s %10.0f %10s %10s %12s\n", t.Name, t.Rate, duration(t.P50), duration(t.P99), duration(t.CPU))
	}
	b.WriteByte('\n')
	for _, c := range r.Ratios {
		fmt.Fprintf(&b, "%s = %.2f    adds %s of processor time to a request\n", c.Of, c.Rate, duration(c.AddsCPU))
	}
	verdict := "missed"
	if r.Agent.Met {
		verdict = "met"
	}
	fmt.Fprintf(&b, "g-f = %s    is what the agent adds to a request at p50; target: below %s, %s\n",
		duration(r.Agent.Added), duration(r.Agent.Target), verdict)
	fmt.Fprintf(&b, "h-f = %s    is what a bare proxy adds in its place\n", duration(r.Agent.Bare))
	_, err := io.WriteString(w, b.String())
	return err
}

// writeJSON writes a report for programs.
func writeJSON(w io.Writer, r report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func median(rounds []round, of func(round) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	return middle(values)
}

// middle is the median, the mean of two where there are two.
func middle(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// duration writes microseconds.
func duration(us float64) string {
	return time.Duration(us * float64(time.Microsecond)).Round(time.Microsecond).String()
}
