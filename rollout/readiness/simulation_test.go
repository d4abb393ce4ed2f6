package readiness_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/stat/distuv"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// job is an account's pipeline with how often it runs.
type job struct {
	account, pipeline string
	// aDay is how many runs it has a day; every, if not zero, is how many days lie
	// between two runs of one that has fewer, at two in the morning.
	aDay  float64
	every int
}

// jobs are so many accounts with so many pipelines each, which share the runs of
// a day.
func jobs(accounts, pipelines int, aDay float64) []job {
	var all []job
	for a := range accounts {
		for p := range pipelines {
			all = append(all, job{account: fmt.Sprintf("svc-%c", 'a'+a), pipeline: fmt.Sprintf("Load%02d", a*pipelines+p), aDay: aDay / float64(accounts*pipelines)})
		}
	}
	return all
}

// simulation is a team that is judged at noon of each of many days.
type simulation struct {
	name string
	jobs []job
	// breaks is the share of runs that break by themselves.
	breaks float64
	// even spreads the runs evenly, not by chance.
	even bool
	// limits changes the default ones.
	limits func(*readiness.Limits)
	// run changes a run, lead what the team or its platform does after the report of
	// a day was read.
	run  func(s *simulation, r *evidence.Run)
	lead func(s *simulation, day int, r readiness.Report)

	facts readiness.Facts
	days  map[evidence.Day]evidence.Daily
	uses  map[string]evidence.Use
	// config is the hash of the configuration in force.
	config string
	rng    *rand.Rand
	next   int
}

// began is when all simulations do, a Monday.
var began = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// dayOf is which day of the simulation a time belongs to: day 1 ends at its
// first report.
func dayOf(at time.Time) int { return int(at.Sub(began)/day) + 1 }

func (s *simulation) start(seed uint64) {
	s.rng = rand.New(rand.NewPCG(seed, uint64(len(s.name))))
	s.config = "a"
	s.days, s.uses = make(map[evidence.Day]evidence.Daily), make(map[string]evidence.Use)
	limits := readiness.DefaultLimits()
	if s.limits != nil {
		s.limits(&limits)
	}
	s.facts = readiness.Facts{
		Team: "data-eng", State: rollout.State{Team: "data-eng"}, Limits: limits, Since: began, Requests: 1_000_000, Uses: s.uses,
		Accounts: make(map[string]readiness.Account),
		Key:      func(account, pipeline string) string { return account + "/" + pipeline },
	}
	for _, j := range s.jobs {
		s.facts.Accounts[j.account] = readiness.Account{Legacy: true, OIDC: true}
	}
}

// live makes the runs of a day, from noon to noon.
func (s *simulation) live(d int) {
	from := began.Add(time.Duration(d-1) * day)
	for _, j := range s.jobs {
		if j.every > 0 {
			if d%j.every == 0 {
				s.add(j, from.Add(14*time.Hour))
			}
			continue
		}
		if s.even {
			between := time.Duration(float64(day) / j.aDay)
			for at := between / 2; at < day; at += between {
				s.add(j, from.Add(at))
			}
			continue
		}
		for range poisson(s.rng, j.aDay) {
			s.add(j, from.Add(time.Duration(s.rng.Int64N(int64(day)))))
		}
	}
}

func (s *simulation) add(j job, at time.Time) {
	r := clean(j.account, j.pipeline)
	r.First, r.Last = at, at.Add(10*time.Minute)
	r.FirstExpiry, r.LastExpiry = at.Add(time.Hour), at.Add(time.Hour)
	r.Config = s.config
	r.Enforced = rollout.Selected(s.facts.Team, s.facts.Key(j.account, j.pipeline), s.facts.State.Percent)
	if s.rng.Float64() < s.breaks {
		r.Grade, r.Reason = evidence.WouldBreak, identity.Expired
	}
	if s.run != nil {
		s.run(s, &r)
	}
	of := evidence.DayOf(at)
	if _, ok := s.days[of]; !ok {
		s.days[of] = evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run)}
	}
	// As the store does: a sample of what is much, and every failure.
	if j.aDay > evidence.MaxRuns && r.Grade == evidence.Clean && s.rng.Float64() > evidence.MaxRuns/j.aDay {
		daily := s.days[of]
		daily.Unkept++
		s.days[of] = daily
		return
	}
	r.Refused = r.Refused || r.Enforced && r.Grade == evidence.WouldBreak
	if r.Grade != evidence.Clean {
		r.Worst, r.TraceID = at.Add(time.Minute), fmt.Sprintf("%032x", s.next)
	}
	if r.Token {
		s.uses[r.Account] = s.uses[r.Account].Merge(evidence.Use{Token: r.Last})
	}
	if r.Legacy {
		s.uses[r.Account] = s.uses[r.Account].Merge(evidence.Use{Legacy: r.Last})
	}
	s.next++
	var key evidence.RunKey
	key[0], key[1], key[2] = byte(s.next), byte(s.next>>8), byte(s.next>>16)
	s.days[of].Runs[key] = r
}

// judge is the report at a time.
func (s *simulation) judge(at time.Time) readiness.Report {
	f := s.facts
	f.Now = at
	f.Config = func(string) string { return s.config }
	f.Days = make(map[evidence.Day]evidence.Daily)
	for of := evidence.DayOf(at); of.End().After(at.Add(-max(f.Limits.Window, f.Limits.Cycle))); of = of.Before() {
		if daily, ok := s.days[of]; ok {
			f.Days[of] = daily
		}
	}
	return readiness.Judge(f)
}

// set moves the team's percentage.
func (s *simulation) set(at time.Time, c rollout.Change) {
	c.Team, c.Expect, c.Actor, c.Source, c.At = s.facts.Team, rollout.AnyRevision, "lead", "cli", at
	next, _, err := rollout.Apply(s.facts.State, c, at)
	if err != nil {
		panic(err)
	}
	s.facts.State = next
}

// poisson is a number of events of which there are so many on average.
func poisson(rng *rand.Rand, mean float64) int {
	if mean <= 0 {
		return 0
	}
	return int(distuv.Poisson{Lambda: mean, Src: rng}.Rand())
}

// simulations are the teams of the golden file.
func simulations() []*simulation {
	const large, larger = 45, 60
	at := func(s *simulation, d int) time.Time { return began.Add(time.Duration(d) * day) }
	asked := func(p rollout.Percent) *rollout.Request {
		return &rollout.Request{Percent: p, Actor: "lead", Source: "file", At: began}
	}
	return []*simulation{
		{name: "a large team of which nothing ever breaks", jobs: jobs(3, 4, larger)},
		{name: "a large team of which 0.1% break", jobs: jobs(3, 4, larger), breaks: 0.001},
		{name: "a large team of which 0.9% break, just below the limit", jobs: jobs(3, 4, large), breaks: 0.009},
		{name: "a large team of which 1.25% break", jobs: jobs(3, 4, large), breaks: 0.0125},
		{name: "a large team of which 3% break", jobs: jobs(3, 4, large), breaks: 0.03},
		{
			name: "a small team with a job of once a month, longest_cycle 31d",
			jobs: append(jobs(1, 3, 3), job{account: "svc-a", pipeline: "CloseMonth", every: 30}),
			limits: func(l *readiness.Limits) {
				l.Cycle = 31 * day
			},
		},
		{
			name: "a small team with a job of once a week",
			jobs: append(jobs(1, 3, 3), job{account: "svc-a", pipeline: "Weekly", every: 7}),
		},
		{
			name: "bursts of 200 failures within an hour on day 20 and day 50",
			jobs: jobs(3, 4, large),
			lead: func(s *simulation, d int, _ readiness.Report) {
				if d == 19 || d == 49 {
					for i := range 200 {
						s.addBad(s.jobs[i%3], at(s, d).Add(time.Duration(i)*hour/200), identity.Expired)
					}
				}
			},
		},
		{
			name: "a wrong claim in two pipelines from day 12 to day 20, repaired without a word",
			jobs: jobs(3, 4, large), run: wrongClaim,
		},
		{
			name: "a wrong claim in two pipelines from day 12 to day 20, and the file records the fix",
			jobs: jobs(3, 4, large), run: wrongClaim,
			lead: func(s *simulation, d int, _ readiness.Report) {
				if d == 20 {
					for _, j := range s.jobs[:2] {
						s.facts.Fixed = append(s.facts.Fixed, readiness.Fix{Account: j.account, Pipeline: j.pipeline, Reason: identity.AudMismatch, At: at(s, d)})
					}
				}
			},
		},
		{
			name: "the identity provider is away for half of day 30",
			jobs: jobs(3, 4, large),
			run: func(_ *simulation, r *evidence.Run) {
				if since := r.First.Sub(began.Add(29 * day)); since >= 0 && since < 12*hour {
					r.Grade, r.Reason = evidence.Indeterminate, identity.JWKSUnavailable
				}
			},
		},
		{
			name: "a gateway loses an hour of evidence on day 25",
			jobs: jobs(3, 4, large),
			lead: func(s *simulation, d int, _ readiness.Report) {
				s.facts.Missing = 0
				if d >= 24 && d < 24+14 {
					s.facts.Missing = 3_000
				}
			},
		},
		{
			name: "roles change on day 40",
			jobs: jobs(3, 4, large),
			lead: func(s *simulation, d int, _ readiness.Report) {
				if d == 39 {
					s.config = "b"
				}
			},
		},
		{
			name: "roles change on day 40 in a small team",
			jobs: append(jobs(1, 3, 3), job{account: "svc-a", pipeline: "Weekly", every: 7}),
			lead: func(s *simulation, d int, _ readiness.Report) {
				if d == 39 {
					s.config = "b"
				}
			},
		},
		{
			name: "half of the clients send no token until day 15",
			jobs: jobs(3, 4, large),
			run: func(s *simulation, r *evidence.Run) {
				if dayOf(r.First) < 15 && s.rng.IntN(2) == 0 {
					r.Token, r.Grade, r.Reason = false, evidence.NoToken, identity.TokenAbsent
				}
			},
		},
		{
			name: "a team that is raised as the answer allows, rolled back once, and retired",
			jobs: jobs(4, 5, large),
			run: func(s *simulation, r *evidence.Run) {
				// A client that was enforced once has no password any more.
				r.Legacy = s.facts.State.Percent < 100
				// The first raise to 50 percent meets clients that have no token at times.
				if st := s.facts.State; st.Percent == 50 && st.LoweredAt.IsZero() && r.Enforced && s.rng.IntN(10) == 0 {
					r.Token, r.Grade, r.Reason, r.Refused = false, evidence.NoToken, identity.TokenAbsent, true
				}
			},
			lead: raise([]rollout.Percent{1, 5, 10, 50, 100}, asked),
		},
		{
			name: "one pipeline of 1,000 runs a day, raised as far as the answer allows each time",
			jobs: []job{{account: "svc-a", pipeline: "Poll", aDay: 1000}},
			run: func(s *simulation, r *evidence.Run) {
				// Its key is selected at the first percent.
				r.Enforced = s.facts.State.Percent > 0
			},
			lead: func(s *simulation, d int, r readiness.Report) {
				if r.Answer == readiness.Ready && r.UpTo > r.Percent {
					s.set(r.At, rollout.Change{Percent: r.UpTo, Request: asked(r.UpTo)})
				}
			},
		},
		{
			name: "a small team that is raised as the answer allows, and retired",
			jobs: jobs(2, 2, 6),
			run:  func(s *simulation, r *evidence.Run) { r.Legacy = s.facts.State.Percent < 100 },
			lead: raise([]rollout.Percent{10, 50, 100}, asked),
		},
	}
}

func (s *simulation) addBad(j job, at time.Time, reason identity.Reason) {
	run := s.run
	s.run = func(_ *simulation, r *evidence.Run) { r.Grade, r.Reason = evidence.WouldBreak, reason }
	s.add(j, at)
	s.run = run
}

func wrongClaim(s *simulation, r *evidence.Run) {
	if d := dayOf(r.First); d > 12 && d <= 20 && (r.Pipeline == s.jobs[0].pipeline || r.Pipeline == s.jobs[1].pipeline) {
		r.Grade, r.Reason = evidence.WouldBreak, identity.AudMismatch
	}
}

// raise is a lead who follows the answer step by step and lifts a hold after five
// days, and an SRE who rolls the first raise above 10 percent that has runs
// refused back.
func raise(steps []rollout.Percent, asked func(rollout.Percent) *rollout.Request) func(*simulation, int, readiness.Report) {
	rolledBack := 0
	return func(s *simulation, d int, r readiness.Report) {
		now := r.At
		state := s.facts.State
		soak, _ := r.Check(readiness.Soaked)
		switch {
		case rolledBack == 0 && soak.Owner != "" && state.Percent > 10:
			rolledBack = d
			c, err := rollout.Rollback(state, rollout.Setting{Actor: "sre", Source: "cli", Reason: "rolled back: runs were refused"}, now)
			if err != nil {
				panic(err)
			}
			s.set(now, c)
		case rolledBack > 0 && d == rolledBack+5:
			s.set(now, rollout.Release(state, rollout.Setting{Actor: "lead", Source: "cli"}, now))
		case r.Answer == readiness.Ready && state.Percent == rollout.Full:
			s.set(now, rollout.Change{Kind: rollout.KindRetire, Percent: rollout.Full, Retire: true})
		case r.Answer == readiness.Ready:
			for _, next := range steps {
				if next > state.Percent {
					if next <= r.UpTo {
						s.set(now, rollout.Change{Percent: next, Request: asked(next)})
					}
					break
				}
			}
		}
	}
}

// line is what a report says on the days from one to another.
type line struct {
	from, to   int
	r, last    readiness.Report
	sameButFor string
}

var figures = regexp.MustCompile(`[0-9][0-9,.]*( (second|minute|hour|day)s?)?`)

func answerText(r readiness.Report) string {
	switch {
	case r.Answer == readiness.Ready && r.Percent < rollout.Full:
		return fmt.Sprintf("ready to %s%%", r.UpTo)
	case r.Answer == readiness.Ready:
		return "ready to retire"
	default:
		return string(r.Answer)
	}
}

func waitText(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 36*hour:
		return fmt.Sprintf("%dh", int(math.Ceil(d.Hours())))
	default:
		return fmt.Sprintf("%.1fd", d.Hours()/24)
	}
}

// tell is what the team is told over so many days.
func (s *simulation) tell(seed uint64, days int) string {
	var b strings.Builder
	s.start(seed)
	var lines []line
	for d := 1; d <= days; d++ {
		s.live(d)
		r := s.judge(began.Add(time.Duration(d) * day))
		same := strings.Join([]string{answerText(r), figures.ReplaceAllString(r.Why, "#"), string(r.Owner), r.Percent.String()}, "|")
		if r.Answer == readiness.Blocked {
			same = "blocked|" + string(r.Owner)
		}
		if n := len(lines); n > 0 && lines[n-1].sameButFor == same {
			lines[n-1].to, lines[n-1].last = d, r
		} else {
			lines = append(lines, line{d, d, r, r, same})
		}
		if s.lead != nil {
			s.lead(s, d, r)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", s.name)
	fmt.Fprintf(&b, "  %-7s %4s  %-15s  %-8s  %-15s %s\n", "days", "live", "answer", "who acts", "wait", "why")
	for _, l := range lines {
		span, wait := fmt.Sprint(l.from), waitText(l.r.Wait)
		if l.to > l.from {
			span = fmt.Sprintf("%d-%d", l.from, l.to)
			if last := waitText(l.last.Wait); last != wait {
				wait += " -> " + last
			}
		}
		fmt.Fprintf(&b, "  %-7s %3s%%  %-15s  %-8s  %-15s %s\n", span, l.r.Percent, answerText(l.r), cmp.Or(string(l.r.Owner), "-"), wait, l.r.Why)
	}
	return b.String()
}

// TestNinetyDaysOfTeamsReadAsTheyShould writes what teams with known troubles are
// told, compressed to the days on which something but a figure changed.
func TestNinetyDaysOfTeamsReadAsTheyShould(t *testing.T) {
	const days = 90
	var b bytes.Buffer
	fmt.Fprintln(&b, "# Ninety days of made-up teams, judged at noon of each day. A line holds while")
	fmt.Fprintln(&b, "# nothing but figures, or what of several things blocks, changes; its reason is of")
	fmt.Fprintln(&b, "# its first day, its wait of the first and the last.")
	all := simulations()
	told := make([]string, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { told[i] = s.tell(uint64(i), days) })
	}
	wg.Wait()
	b.WriteString(strings.Join(told, ""))
	golden := filepath.Join("testdata", "simulation.golden")
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("what teams are told has changed (-update, if it should have):\n%s", diff)
	}
}
