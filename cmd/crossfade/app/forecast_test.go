package app_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/app"
	event "crossfade/gateway"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// planned asks what would become of a percentage of data-eng, past the checks.
func (g *gateway) planned(token string, percent int) console.Step {
	g.site.t.Helper()
	got := g.answers(200, "POST", "/plan", token, fmt.Sprintf(`{"requests":[{"team":"data-eng","percent":%d,"override":"a test"}]}`, percent))
	var plan console.Plan
	if err := json.Unmarshal([]byte(got.body), &plan); err != nil || len(plan.Steps) != 1 {
		g.site.t.Fatalf("%v: %v", err, got)
	}
	return plan.Steps[0]
}

// judged notes by which Enforcement the requests of each run were last judged.
type judged struct {
	mu   sync.Mutex
	n    map[string]int
	last map[string]rollout.Enforcement
}

func newJudged() *judged {
	return &judged{n: make(map[string]int), last: make(map[string]rollout.Enforcement)}
}

func (j *judged) observe(ev *event.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.n[ev.Call.Run]++
	j.last[ev.Call.Run] = ev.Enforcement
}

func (j *judged) of(run string) (n int, last rollout.Enforcement) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.n[run], j.last[run]
}

// ask sends the request of a run until the store was there to judge it: on a busy
// machine it may not answer within what a request waits for it.
func (j *judged) ask(g *gateway, run string, q request) (got reply) {
	g.site.t.Helper()
	g.site.eventually("the request of "+run+" is judged with the store", func() bool {
		before, _ := j.of(run)
		got = g.send(q)
		var last rollout.Enforcement
		g.site.eventually("the request is told of", func() bool {
			var n int
			n, last = j.of(run)
			return n > before
		})
		return !last.Stale
	})
	return got
}

// A plan names exactly those whose next run is refused once the team is raised,
// whatever is bucketed, and counts the runs in flight that are not.
func TestAPlanNamesThoseWhoAreRefusedAfterTheRaise(t *testing.T) {
	t.Parallel()
	const team, families = identity.Team("data-eng"), 10
	own := int(rollout.Threshold(team, "svc-etl"))
	page := pages()
	for name, tc := range map[string]struct {
		stickiness, profile string
		percent             int
		// names tells whether the plan can name anybody.
		names bool
	}{
		"pipelines":                           {"pipeline", "luigi", 50, true},
		"an account that is selected":         {"principal", "luigi", own, true},
		"an account that is not":              {"principal", "luigi", own - 1, true},
		"runs, each by itself":                {"run", "luigi", 50, false},
		"profile http, an account that is":    {"principal", "http", own, true},
		"profile http, an account that isn't": {"principal", "http", own - 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.administered()
			s.configure("rollout", "{ stickiness: "+tc.stickiness+" }", "upstream", fmt.Sprintf("{ url: %s, profile: %s }", s.upstream.URL, tc.profile))
			store := inProcess(t)
			judge := newJudged()
			g := s.start(func(o *app.Options) { o.Store, o.OnEvent = store, judge.observe }).loaded()
			operator, companion := s.token("svc-ml", audience), s.token("svc-etl", audience)
			// three runs of each family, or in profile http one account
			call := func(when string, family, run int) (worker string, q request) {
				if tc.profile == "http" {
					return "", page
				}
				worker = fmt.Sprintf("%s-%d-%d", when, family, run)
				return worker, addTask(worker, fmt.Sprint("Family", family))
			}
			runs := 0
			for family := range families {
				for run := range 3 {
					worker, q := call("first", family, run)
					q = etl(q)
					q.companion = companion
					if got := judge.ask(g, worker, q); got.status != 200 {
						t.Fatalf("family %d: %v", family, got)
					}
					runs++
				}
			}
			if tc.profile == "http" {
				runs = 1 // what an account does in a day
			}
			s.eventually("the evidence is there", func() bool { return g.planned(operator, 100).RunsADay == float64(runs) })
			plan := g.planned(operator, tc.percent)
			if tc.profile == "luigi" && (plan.Outcome != "raise" || plan.Keep != int64(runs)) {
				t.Errorf("in flight are %d runs: %+v", runs, plan)
			}

			g.answers(200, "PUT", "/teams/data-eng/rollout", operator, fmt.Sprintf(`{"percent":%d}`, tc.percent), "If-Match", "*")
			g.reaches(team, rollout.Percent(tc.percent))
			refused := map[string]bool{}
			again := 0
			for family := range families {
				for run := range 3 {
					who := "svc-etl"
					if tc.profile == "luigi" {
						if tc.stickiness == "pipeline" {
							who = fmt.Sprintf("svc-etl / Family%d", family)
						}
						worker, q := call("first", family, run)
						if got := judge.ask(g, worker, etl(q)); got.header.Get("Crossfade-Reason") != "" {
							t.Errorf("a run in flight is refused: %v", got)
						}
					}
					worker, q := call("second", family, run)
					if got := judge.ask(g, worker, etl(q)); got.header.Get("Crossfade-Reason") == string(identity.LegacyRefused) {
						refused[who] = true
						again++
					}
				}
			}
			if !tc.names {
				if len(plan.Selected) > 0 || plan.RunsADay != float64(runs)/2 || again < 3 || again > 27 {
					t.Errorf("half of %d runs are selected, each by itself: %d were; %+v", runs, again, plan)
				}
				return
			}
			var who []string
			for name := range refused {
				who = append(who, name)
			}
			slices.Sort(who)
			if diff := cmp.Diff(who, plan.Selected); diff != "" {
				t.Errorf("who was refused (-), and who was named (+):\n%s", diff)
			}

			// A gateway that starts now knows for how many of those runs it is in effect.
			// All of them are of today, and the refused ones have joined them.
			later := s.start(func(o *app.Options) { o.Store = store }).loaded()
			var shown console.Team
			s.eventually("the share is known", func() bool {
				shown = console.Team{}
				var plain struct {
					InEffect any `json:"in_effect"`
				}
				body := []byte(later.answers(200, "GET", "/teams/data-eng", operator, "").body)
				if err := json.Unmarshal(body, &plain); err != nil {
					t.Fatal(err)
				}
				_ = json.Unmarshal(body, &shown) // its phase is a word
				return plain.InEffect != nil
			})
			if shown.InEffect.Estimated || (shown.InEffect.Selected > 0) != (len(who) > 0) {
				t.Errorf("%d are selected: in effect %+v", len(who), *shown.InEffect)
			}
			ratio, err := strconv.ParseFloat(later.metric(`crossfade_rollout_effective_ratio{team="data-eng"}`), 64)
			if err != nil || math.Abs(ratio-shown.InEffect.Ratio()) > 1e-9 {
				t.Errorf("the metric says %v, %v; in effect %+v", ratio, err, *shown.InEffect)
			}
		})
	}
}

// A lowering says how many runs may use their password again, and is right.
func TestALoweringSaysWhoMayUseAPasswordAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.administered()
	store := inProcess(t)
	judge := newJudged()
	g := s.start(func(o *app.Options) { o.Store, o.OnEvent = store, judge.observe }).loaded()
	operator := s.token("svc-ml", audience)
	g.answers(200, "PUT", "/teams/data-eng/rollout", operator, `{"percent":100}`, "If-Match", "*")
	g.reaches("data-eng", 100)
	for i := range 3 {
		worker := fmt.Sprint("worker-", i)
		if got := judge.ask(g, worker, etl(addTask(worker, "LoadUsers"))); got.header.Get("Crossfade-Reason") != string(identity.LegacyRefused) {
			t.Fatalf("at 100: %v", got)
		}
	}
	s.eventually("the refusals are known", func() bool { return g.planned(operator, 0).Regain == 3 })
	if plan := g.planned(operator, 0); plan.Outcome != "lower" || plan.Freed != 3 || plan.Selected != nil {
		t.Errorf("the plan: %+v", plan)
	}
	g.answers(200, "PUT", "/teams/data-eng/rollout", operator, `{"percent":0}`, "If-Match", "*")
	g.reaches("data-eng", 0)
	for i := range 3 {
		worker := fmt.Sprint("worker-", i)
		if got := judge.ask(g, worker, etl(addTask(worker, "LoadUsers"))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
			t.Errorf("afterwards: %v", got)
		}
	}
}
