package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// rollouts gives the site a rollout directory.
func (s *site) rollouts() {
	s.t.Helper()
	if err := os.Mkdir(filepath.Join(s.dir, "rollout.d"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.configure("rollout", "{ dir: rollout.d }")
}

// lead edits the file of a team.
func (s *site) lead(team identity.Team, text string) {
	s.write("rollout.d/"+string(team)+".yaml", text)
}

// runs sends the first requests of n runs, each with a password and a token.
func (g *gateway) runs(n int, user string, ask request) {
	g.site.t.Helper()
	for i := range n {
		got := g.send(withCall(ask, addTask(fmt.Sprintf("%s-%d", user, i), "LoadUsers")))
		if got.status != 200 {
			g.site.t.Errorf("run %d: %v", i, got)
		}
	}
}

func TestATeamLeadEditsAFileAndTheTeamFollows(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.rollouts()
	s.lead("data-eng", "percent: 0\n")
	s.configure("readiness", "{ census_days: 1 }")
	store := inProcess(t)
	longWatched(t, store, "data-eng")
	g := s.start(func(o *app.Options) { o.Store = store }).loaded()
	requested := `crossfade_rollout_requested_ratio{team="data-eng"}`

	s.lead("data-eng", "percent: 50\nreason: week 1\n")
	s.eventually("the request is known", func() bool { return g.metric(requested) == "0.5" })
	if state, _ := g.Table().Lookup("data-eng"); state.Percent != 0 || state.Request.Reason != "week 1" {
		t.Errorf("without evidence: %+v", state)
	}
	g.runs(30, "svc-etl", etl(request{companion: s.token("svc-etl", audience)}))
	s.eventually("with evidence the team is raised", func() bool {
		state, _ := g.Table().Lookup("data-eng")
		return state.Percent == 50
	})
	// Of the thirty at most 24 are kept, and the team is raised as soon as it may be.
	counted := regexp.MustCompile(`^([1-9]|1\d|2[0-4]) clean runs, none would break; up to (5\d|[6-9]\d|100)% possible$`)
	entries, err := store.History(t.Context(), "data-eng", 10)
	if err != nil || entries[0].Kind != rollout.KindApply || !counted.MatchString(entries[0].Evidence) || entries[0].Actor != "rollout.d/data-eng.yaml" {
		t.Errorf("history: %+v, %v", entries, err)
	}

	s.lead("data-eng", "percent: 10\n")
	g.reaches("data-eng", 10)
}

func TestABadTeamFileLeavesTheOthersAndIsSaid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.rollouts()
	s.lead("data-eng", "percent: 50\n")
	store := inProcess(t)
	for _, team := range []identity.Team{"data-eng", "search"} {
		if _, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: 80, Expect: rollout.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	g := s.start(func(o *app.Options) { o.Store = store }).loaded()
	g.reaches("data-eng", 50)
	s.lead("data-eng", "percent: 5O\n")
	s.lead("search", "percent: 20\n")
	s.lead("serach", "percent: 20\n")
	g.reaches("search", 20)
	if state, _ := g.Table().Lookup("data-eng"); state.Percent != 50 {
		t.Errorf("the team of the bad file is at %s%%", state.Percent)
	}
	mistakes := "crossfade_rollout_file_mistakes"
	s.eventually("the mistakes are counted", func() bool { return g.metric(mistakes) == "2" })
	for _, want := range []string{`data-eng.yaml`, `line=1 key=percent`, `did you mean \"search\"?`} {
		if !strings.Contains(g.log.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, g.log)
		}
	}
	s.lead("data-eng", "percent: 5\n")
	g.reaches("data-eng", 5)
	if err := os.Remove(filepath.Join(s.dir, "rollout.d", "serach.yaml")); err != nil {
		t.Fatal(err)
	}
	s.eventually("the mistakes are gone", func() bool { return g.metric(mistakes) == "0" })
}

// Kubernetes mounts a ConfigMap as links to links, and swaps the inner one.
func TestAConfigMapThatIsSwappedIsFollowed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.rollouts()
	dir := filepath.Join(s.dir, "rollout.d")
	swap := func(version, text string) {
		t.Helper()
		inner := filepath.Join(dir, ".."+version)
		for _, err := range []error{
			os.Mkdir(inner, 0o700), os.WriteFile(filepath.Join(inner, "data-eng.yaml"), []byte(text), 0o600),
			os.Symlink(".."+version, filepath.Join(dir, "..data_tmp")),
			os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	store := inProcess(t)
	if _, err := store.Write(t.Context(), rollout.Change{Team: "data-eng", Percent: 80, Expect: rollout.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	swap("1", "percent: 60\n")
	if err := os.Symlink(filepath.Join("..data", "data-eng.yaml"), filepath.Join(dir, "data-eng.yaml")); err != nil {
		t.Fatal(err)
	}
	g := s.start(func(o *app.Options) { o.Store = store }).loaded()
	g.reaches("data-eng", 60)
	swap("2", "percent: 40\n")
	g.reaches("data-eng", 40)
}

func TestARaiseThatHurtsTwoKnownAccountsIsTakenBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("principals.yaml", `
svc-etl:     { team: data-eng, oidc: { subject: svc-etl } }
svc-billing: { team: data-eng, oidc: { subject: svc-billing } }
`)
	store := inProcess(t)
	g := s.start(func(o *app.Options) { o.Store = store }).loaded()
	other := request{user: "svc-billing", password: password("svc-billing")}
	for user, ask := range map[string]request{"svc-etl": etl(request{}), "svc-billing": other} {
		ask.companion = s.token(user, audience)
		g.runs(2, user, ask)
	}
	if _, err := store.Write(t.Context(), rollout.Change{Team: "data-eng", Percent: 100, Expect: rollout.AnyRevision, Source: "cli"}); err != nil {
		t.Fatal(err)
	}
	g.reaches("data-eng", 100)
	// One of them, with a worker for each attempt, is not enough.
	for i := range 20 {
		g.send(withCall(etl(request{}), addTask(fmt.Sprint("again", i), "LoadUsers")))
	}
	alerts := `crossfade_rollout_alerts_total{team="data-eng"}`
	s.eventually("somebody is alerted", func() bool { return g.metric(alerts) == "1" })
	if state, _ := g.Table().Lookup("data-eng"); state.Percent != 100 {
		t.Fatalf("one account rolls its team back: %+v", state)
	}
	g.send(withCall(other, addTask("second", "LoadUsers")))
	g.reaches("data-eng", 0)
	if got := g.send(withCall(etl(request{}), addTask("third", "LoadUsers"))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("the password afterwards: %v", got)
	}
	state, _ := g.Table().Lookup("data-eng")
	if !strings.Contains(state.Hold.Reason, "svc-billing, svc-etl") {
		t.Errorf("the hold: %+v", state.Hold)
	}
}

// withCall is a request with the call of another.
func withCall(ask, call request) request {
	ask.method, ask.path, ask.body = call.method, call.path, call.body
	return ask
}

// password is the one of an account of the demo.
func password(user string) string {
	for _, a := range demo.Accounts() {
		if a.User == user {
			return a.Password.Reveal()
		}
	}
	return ""
}
