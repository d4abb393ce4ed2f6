package onboard_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/onboard"
	"crossfade/config"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
	"crossfade/legacy"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
)

const issuer = "https://idp.example"

// now is a fixed time.
var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// owned are credentials of owners.
func owned(owners ...string) (all []legacy.Info) {
	for _, o := range owners {
		all = append(all, legacy.Info{ID: "basic:" + o, Scheme: identity.SchemeBasic, Owner: o})
	}
	return all
}

// sent is a census of accounts that sent tokens of subjects, each once.
func sent(by map[string][]string) *audit.Census {
	c := &audit.Census{Accounts: map[string]*audit.Seen{}}
	for account, subjects := range by {
		s := &audit.Seen{Team: "unassigned", Requests: 10, Last: now, Subjects: map[audit.Subject]int64{}}
		for _, subject := range subjects {
			s.Subjects[audit.Subject{Issuer: issuer, Subject: subject}] = 1
		}
		c.Accounts[account] = s
	}
	return c
}

func TestATokenIsSuggestedOnlyBeyondDoubt(t *testing.T) {
	for name, tt := range map[string]struct {
		sent       map[string][]string
		configured []config.Principal
		issuers    []string
		want       []onboard.TokenRule
		note       string
	}{
		"of one subject": {
			sent: map[string][]string{"legacy:a": {"s1"}}, issuers: []string{issuer}, want: []onboard.TokenRule{{Subject: "s1"}},
		},
		"of one of several issuers": {
			sent: map[string][]string{"legacy:a": {"s1"}}, issuers: []string{issuer, "https://other.example"}, want: []onboard.TokenRule{{Issuer: issuer, Subject: "s1"}},
		},
		"of an account that had another entry then": {
			sent: map[string][]string{"a": {"s1"}}, issuers: []string{issuer}, want: []onboard.TokenRule{{Subject: "s1"}},
		},
		"none was sent": {sent: map[string][]string{"legacy:a": nil}, issuers: []string{issuer}},
		"of several subjects": {
			sent: map[string][]string{"legacy:a": {"s1", "s2"}}, issuers: []string{issuer}, note: "shared: true",
		},
		"of an issuer that is not configured": {sent: map[string][]string{"legacy:a": {"s1"}}, note: "which is not configured"},
		"of a subject that an entry names": {
			sent: map[string][]string{"legacy:a": {"s1"}}, issuers: []string{issuer},
			configured: []config.Principal{{Name: "robot", OIDC: []config.TokenMatch{{Subject: "s1"}}}}, note: "which means robot already",
		},
		"of a subject that another user sent, too": {
			sent: map[string][]string{"legacy:a": {"s1"}, "legacy:b": {"s1"}}, issuers: []string{issuer}, note: "make them one entry",
		},
	} {
		entries := onboard.Principals(onboard.Basis{
			Census: sent(tt.sent), Credentials: owned("a"), Issuers: tt.issuers, Configured: tt.configured, Since: now.Add(-time.Hour),
		})
		i := slices.IndexFunc(entries, func(e onboard.Entry) bool { return e.Name == "a" })
		if i < 0 {
			t.Errorf("%s: no entry in %+v", name, entries)
			continue
		}
		if diff := cmp.Diff(tt.want, entries[i].OIDC); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if notes := strings.Join(entries[i].Notes, "\n"); !strings.Contains(notes, tt.note) || tt.note == "" && notes != "" {
			t.Errorf("%s: noted %q", name, notes)
		}
		loads(t, entries, tt.configured)
	}
}

func TestEntriesHaveNamesThatLoad(t *testing.T) {
	configured := []config.Principal{{Name: "taken", Team: "x", Legacy: []string{"someone"}}, {Name: "shared", Shared: true, MayBe: []string{"taken"}, Legacy: []string{"pool"}}}
	entries := onboard.Principals(onboard.Basis{Credentials: owned("taken", "someone", "pool", "oidc:x", "legacy:y", "true", "a: b", "é", "#1", "12"), Configured: configured})
	var got []string
	for _, e := range entries {
		got = append(got, e.Name+" for "+strings.Join(e.Legacy, ","))
		if e.Name != e.Legacy[0] && len(e.Notes) == 0 {
			t.Errorf("%s is not what its user is called, and nothing says so", e.Name)
		}
	}
	want := []string{"#1 for #1", "12 for 12", "a: b for a: b", "legacy-y for legacy:y", "oidc-x for oidc:x", "taken-2 for taken", "true for true", "é for é"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	loads(t, entries, configured)
}

func TestTheBusiestStandFirstAndTheNeverSeenLast(t *testing.T) {
	since := now.Add(-7 * 24 * time.Hour)
	b := onboard.Basis{
		Since: since, Credentials: owned("never", "old", "slow", "busy", "runs"),
		Census: &audit.Census{Accounts: map[string]*audit.Seen{
			"legacy:busy": {Requests: 100, Last: now}, "legacy:slow": {Requests: 1, Last: now},
		}},
		Evidence: map[string]*onboard.Account{
			"legacy:old": {Legacy: since.Add(-time.Hour)}, "legacy:runs": {Legacy: now, Runs: 5}, "legacy:busy": {Legacy: now, Runs: 1},
			"oidc:x@y": {Token: now}, "stranger": {Token: now},
		},
	}
	var got []string
	for _, e := range onboard.Principals(b) {
		got = append(got, fmt.Sprintf("%s %s", e.Name, e.Seen))
	}
	if diff := cmp.Diff([]string{"busy seen", "slow seen", "runs seen", "old before", "never never"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// loads checks that entries, beside what is configured, are a principals file.
func loads(t testing.TB, entries []onboard.Entry, configured []config.Principal) *config.Config {
	t.Helper()
	have := onboard.Principals(onboard.Basis{Configured: configured, All: true})
	var b strings.Builder
	if err := onboard.WritePrincipals(&b, "A head\nof two lines\n", append(have, entries...)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"principals.yaml": b.String(),
		"crossfade.yaml":  "principals: principals.yaml\noidc: { issuers: [{ issuer: " + issuer + ", audiences: [x] }] }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(config.Source{File: filepath.Join(dir, "crossfade.yaml"), Partial: true})
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if len(c.Principals) != len(entries)+len(configured) {
		t.Fatalf("%d of %d entries are left of\n%s", len(c.Principals), len(entries)+len(configured), b.String())
	}
	return c
}

func FuzzWritePrincipals(f *testing.F) {
	f.Add("svc-etl", "LoadUsers", "0oa1", "10.0.0.1")
	f.Add("- x: [", "a\nsvc: { team: evil }", "\"}", "\x1b[2J")
	f.Add("m", "\xad\x80", "", "")
	f.Add("~", "é\u2028", "{{", "")
	f.Fuzz(func(t *testing.T, user, family, subject, host string) {
		if user == "" || len(user) > 255 || printableOnly(user) != user {
			return // no file of credentials has such a user
		}
		c := sent(map[string][]string{"legacy:" + user: {printableOnly(subject)}})
		c.Accounts["legacy:"+user].Families = map[string]int64{family: 1}
		c.Accounts["legacy:"+user].Hosts = map[string]int64{host: 1}
		entries := onboard.Principals(onboard.Basis{Census: c, Issuers: []string{issuer}, Credentials: owned(user)})
		got := loads(t, entries, nil)
		if p := got.Principals[0]; len(p.Legacy) != 1 || p.Legacy[0] != user || p.Team != onboard.Placeholder {
			t.Errorf("the entry of %q became %+v", user, p)
		}
	})
}

// printableOnly is what a trail or a file of credentials keeps of a text.
func printableOnly(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r > 0x7e {
			return '?'
		}
		return r
	}, strings.TrimSpace(text))
}

func FuzzWriteRoles(f *testing.F) {
	f.Add("svc-etl", "LoadUsers", "ExtractOrders")
	f.Add("legacy:x\n", "*", "- y: {")
	f.Fuzz(func(t *testing.T, account, a, b string) {
		if account == "" {
			return
		}
		seen := map[string]*onboard.Account{account: {Team: "x", Runs: 1, Families: map[string]time.Time{a: now, b: now, "Sound": now}}}
		roles := onboard.SuggestRoles(onboard.Basis{Evidence: seen}, 0)
		var text strings.Builder
		if err := onboard.WriteRoles(&text, "A head\n", roles); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, content := range map[string]string{"roles.yaml": text.String(), "crossfade.yaml": "roles: roles.yaml\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := config.Load(config.Source{File: filepath.Join(dir, "crossfade.yaml"), Partial: true})
		if err != nil {
			t.Fatalf("%v\n%s", err, text.String())
		}
		if diff := cmp.Diff(roles.Roles, c.Roles.Roles); diff != "" {
			t.Errorf("(-suggested +loaded):\n%s\n%s", diff, text.String())
		}
	})
}

func TestWhatWasSeenBecomesRequests(t *testing.T) {
	const execute, view, admin = identity.ActionExecute, identity.ActionView, identity.ActionAdmin
	for name, tt := range map[string]struct {
		deed audit.Deed
		want policy.Request
	}{
		"a call about a family":                  {audit.Deed{Action: execute, RPC: "add_task", Family: "A"}, policy.Request{Action: execute, Family: "A"}},
		"a sign of life":                         {audit.Deed{Action: execute, RPC: "ping", Counted: true}, policy.Request{Action: execute}},
		"a question for work":                    {audit.Deed{Action: execute, RPC: "get_work", Counted: true}, policy.Request{Action: execute}},
		"a list":                                 {audit.Deed{Action: view, RPC: "worker_list", Counted: true}, policy.Request{Action: view}},
		"a look at some family that is not told": {audit.Deed{Action: view, RPC: "dep_graph", Counted: true}, policy.Request{Action: view, EveryFamily: true}},
		"a page":                                 {audit.Deed{Action: view, Counted: true}, policy.Request{Action: view, EveryFamily: true}},
		"an administrator's call on everything":  {audit.Deed{Action: admin, RPC: "pause"}, policy.Request{Action: admin, EveryFamily: true}},
		"an administrator's call on a family":    {audit.Deed{Action: admin, RPC: "re_enable_task", Family: "A"}, policy.Request{Action: admin, Family: "A"}},
	} {
		c := &audit.Census{Accounts: map[string]*audit.Seen{"a": {Team: "x", Deeds: map[audit.Deed]int64{tt.deed: 1}}}}
		got := onboard.Observed(onboard.Basis{Census: c})
		if diff := cmp.Diff([]policy.Observed{{Account: "a", Team: "x", Did: []policy.Request{tt.want}}}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestFamiliesThatOnlyTheEvidenceKnowsAreExecutedByRunsAndLookedAtByPeople(t *testing.T) {
	families := map[string]time.Time{"A": now, "Refused": now}
	looks := map[audit.Deed]int64{{Action: identity.ActionView, RPC: "dep_graph", Counted: true}: 1}
	got := onboard.SuggestRoles(onboard.Basis{
		Configured: []config.Principal{{Name: "svc", Team: "data-eng", Legacy: []string{"user"}, Roles: []string{"old"}}},
		Evidence: map[string]*onboard.Account{
			"legacy:user": {Team: "unassigned", Runs: 3, Families: families}, "person": {Team: "x", Families: families},
			"both": {Team: "x", Runs: 1, Families: families},
		},
		Census: &audit.Census{Accounts: map[string]*audit.Seen{
			"svc": {Team: "data-eng", Families: map[string]int64{"Refused": 1}}, "both": {Team: "x", Deeds: looks},
		}},
	}, 0)
	want := onboard.Roles{
		Roles: map[string]config.Role{"both": {View: []string{"*"}}, "person": {View: []string{"A", "Refused"}}, "svc": {Execute: []string{"A"}}},
		Accounts: []onboard.Holder{
			{Account: "both", Team: "x", Role: "both"},
			{Account: "person", Team: "x", Role: "person"},
			{Account: "svc", Team: "data-eng", Role: "svc", Entry: true, Has: []string{"old"}},
		},
		LeftOut: []onboard.LeftOut{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEvidenceIsReadOfAllTeams(t *testing.T) {
	store, err := redisstore.NewInProcess()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	at := time.Now().Truncate(time.Millisecond).UTC()
	old := at.Add(-48 * time.Hour)
	run := func(account string, last time.Time) map[evidence.RunKey]evidence.Run {
		return map[evidence.RunKey]evidence.Run{evidence.NewRunKey(account, "w"): {Account: account, Pipeline: "A", First: last, Last: last}}
	}
	err = store.Record(t.Context(), evidence.Batch{Replica: "r", Seq: 1, Teams: map[identity.Team]*evidence.TeamBatch{
		"x": {
			Days:     map[evidence.Day]*evidence.Daily{evidence.DayOf(at): {Runs: run("a", at)}, evidence.DayOf(old): {Runs: run("a", old)}},
			Accounts: map[string]evidence.Use{"a": {Legacy: at, Token: old}, "moved": {Legacy: old}},
			Families: map[evidence.Family]evidence.FamilyUse{{Account: "a", Name: "A"}: {Last: at}, {Account: "a", Name: "Old"}: {Last: old}},
		},
		"y": {Accounts: map[string]evidence.Use{"moved": {Token: at}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := onboard.ReadEvidence(t.Context(), store, []identity.Team{"x", "y"}, at.Add(-time.Hour), at)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*onboard.Account{
		"a":     {Team: "x", Legacy: at, Token: old, Runs: 1, Families: map[string]time.Time{"A": at}},
		"moved": {Team: "y", Legacy: old, Token: at, Families: map[string]time.Time{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := onboard.ReadEvidence(ended, store, []identity.Team{"x"}, at, at); err == nil || !strings.Contains(err.Error(), "team x") {
		t.Errorf("a store that is away: %v", err)
	}
}
