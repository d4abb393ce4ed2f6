package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// etl is a call of svc-etl's worker with its password.
func etl(method string, action identity.Action) *gateway.Event {
	p := identity.Principal{Name: "svc-etl", Team: "data-eng"}
	return &gateway.Event{
		Start: time.Now(), TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Mode: gateway.Enforce,
		Method: "POST", Path: "/api/" + method, Client: netip.MustParseAddr("10.1.2.3"),
		Call:        gateway.Call{RPC: true, Method: method, Action: action, Run: "worker-1", Family: "LoadUsers"},
		Presented:   gateway.PresentedSchemes{Legacy: identity.SchemeBasic},
		Legacy:      &identity.Authentication{Status: identity.StatusVerified, Principal: p, CredentialID: "basic:svc-etl"},
		Enforcement: rollout.Enforcement{Known: true, Percent: 25},
		Decision:    gateway.Decision{Outcome: gateway.Allowed, Control: gateway.SideLegacy},
		Principal:   p, Status: 200,
	}
}

func addTask() *gateway.Event { return etl("add_task", identity.ActionExecute) }
func ping() *gateway.Event    { return etl("ping", identity.ActionExecute) }

// stranger is a call with a wrong password.
func stranger(method, from string) *gateway.Event {
	ev := etl(method, identity.ActionExecute)
	ev.Legacy = identity.Reject("no such user", identity.LegacyUnknown)
	ev.Principal, ev.Client, ev.Status = identity.Principal{}, netip.MustParseAddr(from), 401
	ev.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyUnknown, Control: gateway.SideLegacy}
	ev.Enforcement = rollout.Enforcement{}
	return ev
}

// byToken makes a call one with a token.
func byToken(ev *gateway.Event, judged *identity.Authentication) *gateway.Event {
	ev.Legacy, ev.Token, ev.Presented = nil, judged, gateway.PresentedSchemes{Token: true}
	ev.Decision.Control, ev.Enforcement = gateway.SideToken, rollout.Enforcement{}
	return ev
}

func execution() luigi.Execution {
	day, secret := "2026-11-24", "hunter2"
	return luigi.Execution{
		Started: luigi.Started{
			Task: "LoadUsers_2026_11_24_1", Family: "LoadUsers", Module: "pipelines.users", Worker: "worker-1", At: time.Now(),
			Parameters: []luigi.Parameter{{Name: "day", Value: &day}, {Name: "password", Value: &secret}, {Name: "shard"}},
			By: luigi.Identity{
				Principal: "svc-etl", Team: "data-eng", Scheme: "oidc", Issuer: "https://idp.example", TokenID: "jti-1",
				Percent: 25, ClientRun: "nightly-4711.1", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Configuration: "c0ffee",
			},
		},
		Ended: time.Now().Add(90 * time.Second), Outcome: luigi.Done, Grace: true,
	}
}

// trail is one under test, with what it told.
type trail struct {
	*audit.Trail
	t *testing.T
	told
}

// told is what a trail told of itself.
type told struct {
	mu      *sync.Mutex
	results map[string]int
	errors  *[]error // nil for "well again"
}

func open(t *testing.T, o audit.Options) *trail {
	t.Helper()
	tr, err := tryOpen(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func tryOpen(t *testing.T, o audit.Options) (*trail, error) {
	t.Helper()
	tr := &trail{t: t, told: told{&sync.Mutex{}, map[string]int{}, &[]error{}}}
	o.Host = "web1"
	o.OnResult = func(result string, n int) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.results[result] += n
	}
	o.Report = func(err error) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		*tr.errors = append(*tr.errors, err)
	}
	var err error
	tr.Trail, err = audit.New(o)
	return tr, err
}

func (tr *trail) observe(events ...*gateway.Event) {
	for _, ev := range events {
		tr.Observe(tr.t.Context(), ev)
	}
}

// result is how often a result was told.
func (tr *trail) result(name string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.results[name]
}

// reports is what was reported.
func (tr *trail) reports() []error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return append([]error(nil), *tr.errors...)
}

func (tr *trail) close() {
	tr.t.Helper()
	if err := tr.Close(context.Background()); err != nil {
		tr.t.Error(err)
	}
}

// write writes a trail of its own life: it opens, observes and closes.
func write(t *testing.T, o audit.Options, events ...*gateway.Event) {
	t.Helper()
	tr := open(t, o)
	tr.observe(events...)
	tr.close()
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// kinds are the kinds of the lines of a text, in order.
func kinds(t *testing.T, text string) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(text) {
		var h audit.Header
		if err := json.Unmarshal([]byte(line), &h); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, string(h.Kind))
	}
	return strings.Join(all, " ")
}

// verify expects a trail without breaks.
func verify(t *testing.T, files ...string) audit.Report {
	t.Helper()
	r, err := audit.Verify(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Intact() {
		t.Errorf("broken: %+v", r.Findings)
	}
	return r
}

func siblings(t *testing.T, name string) []string {
	t.Helper()
	files, err := audit.Files(name)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestLinesSayWhoDidWhatAndHoldNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		tr := open(t, audit.Options{File: file, Version: "test", Parameters: []string{"day"}})
		tr.SetConfiguration("c0ffee")

		claims := func(verified bool) *identity.TokenInfo {
			return &identity.TokenInfo{Verified: verified, Issuer: "https://idp.example", Subject: "0oa1", Digest: "d1d2d3"}
		}
		p := identity.Principal{Name: "svc-etl", Team: "data-eng"}
		good := &identity.Authentication{Status: identity.StatusVerified, Principal: p, Token: claims(true)}
		good.Token.ID = "jti-1"
		forged := identity.Reject(`the signature of "0oa1" is wrong`, identity.SignatureInvalid)
		forged.Token = claims(false)
		expired := identity.Reject("expired an hour ago", identity.Expired)
		expired.Token = claims(true)
		named := func(ev *gateway.Event) *gateway.Event { ev.ClientRun = "nightly-4711.1"; return ev }

		refused := addTask()
		refused.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRefused, Control: gateway.SideLegacy, Candidate: gateway.SideToken}
		refused.Presented.Token, refused.Presented.Companion, refused.Token = true, true, &identity.Authentication{Status: identity.StatusPending}
		refused.Shadowed, refused.ShadowToken = true, forged
		refused.Shadow = shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.SignatureInvalid}
		refused.Enforcement.Pipeline = "LoadAll"
		grace := byToken(addTask(), expired)
		grace.Principal, grace.Decision.Grace = p, true
		unsigned := byToken(addTask(), forged)
		unsigned.Principal = identity.Principal{}
		unsigned.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.SignatureInvalid, Control: gateway.SideToken}
		page := etl("", identity.ActionExecute)
		page.Call.RPC, page.Path = false, "/reports/7;jsessionid=hunter2"
		hostile := addTask()
		hostile.Call.Run = "w\x1b[2J\u202e\xff" + strings.Repeat("x", 500)
		companion := addTask()
		companion.Presented = gateway.PresentedSchemes{Token: true, Companion: true}
		companion.Legacy, companion.Principal, companion.Token = nil, identity.Principal{}, good
		companion.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.TokenAbsent, Candidate: gateway.SideToken}
		ambiguous := byToken(addTask(), good)
		ambiguous.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.RPCAmbiguous}
		ambiguous.Principal = identity.Principal{}
		exempt := &gateway.Event{Decision: gateway.Decision{Outcome: gateway.Exempt}}
		ended := addTask()
		ended.Executions = []luigi.Execution{execution()}

		tr.observe(addTask(), named(byToken(addTask(), good)), refused, grace, unsigned, page, hostile, companion, ambiguous,
			named(stranger("add_task", "192.0.2.7")), exempt, ended, ping(), ping())
		abandoned := execution()
		abandoned.At, abandoned.Outcome, abandoned.Grace = time.Time{}, luigi.Abandoned, false
		tr.Executed(abandoned)
		tr.close()

		var b strings.Builder
		for line := range strings.Lines(read(t, file)) {
			var all map[string]any
			if err := json.Unmarshal([]byte(line), &all); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			before, rest, _ := strings.Cut(line, `,"replica":`)
			_, rest, _ = strings.Cut(rest, `,"seq":`)
			seq, rest, _ := strings.Cut(rest, `,"prev":"`)
			b.WriteString(before + `,"seq":` + seq + rest[64+len(`"`):])
		}
		golden := "testdata/lines.golden"
		if *update {
			if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(read(t, golden), b.String()); diff != "" {
			t.Errorf("(-want +got, -update rewrites it):\n%s", diff)
		}
		if strings.Contains(b.String(), "hunter2") || strings.ContainsAny(b.String(), "\x1b\u202e") {
			t.Error("a secret, or what moves a cursor, is in a line")
		}
		verify(t, file)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("the file is for everyone: %v, %v", info.Mode(), err)
		}
		if n := tr.result(audit.ResultOK); n != strings.Count(b.String(), "\n")-2 { // open, close
			t.Errorf("%d records were told as written", n)
		}
	})
}

func TestFrequentCallsBecomeOneLineARunAndMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		tr := open(t, audit.Options{Stdout: &out})
		for range 150 { // 2.5 minutes from the beginning of one
			tr.observe(ping())
			other := etl("get_work", identity.ActionExecute)
			other.Call.Run = "worker-2"
			tr.observe(other)
			time.Sleep(time.Second)
		}
		tr.close()
		sum := map[string][]int64{}
		for line := range strings.Lines(out.String()) {
			var l struct {
				audit.Header
				audit.Use
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			if l.Kind == audit.KindCount {
				key := l.RPC + " " + l.Run
				sum[key] = append(sum[key], l.N)
				if l.First.Truncate(time.Minute) != l.Time.Truncate(time.Minute) || l.Principal != "svc-etl" || l.Credential != "basic:svc-etl" {
					t.Errorf("a count over two minutes, or of somebody else: %s", line)
				}
			}
		}
		want := map[string][]int64{"ping worker-1": {60, 60, 30}, "get_work worker-2": {60, 60, 30}}
		if diff := cmp.Diff(want, sum); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestAFloodOfStrangersIsCountedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		tr := open(t, audit.Options{Stdout: &out})
		for i := range 6000 {
			ev := stranger(fmt.Sprintf("made_up_%d", i), fmt.Sprintf("192.0.%d.%d", i/250, i%250))
			ev.Call.Run, ev.ClientRun = fmt.Sprint("invented-", i), fmt.Sprint("made-up-", i)
			tr.observe(ev)
			if i%1000 == 999 {
				time.Sleep(time.Second)
			}
		}
		tr.observe(addTask()) // somebody who is known is not among them
		tr.close()
		lines := map[audit.Kind]int{}
		var n int64
		for line := range strings.Lines(out.String()) {
			var l struct {
				audit.Header
				audit.Use
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			lines[l.Kind]++
			n += l.N
			if l.Kind == audit.KindCount && strings.Contains(line, "invented") {
				t.Errorf("a count by what strangers make up: %s", line)
			}
		}
		if lines[audit.KindUse] != audit.StrangerLines+1 || lines[audit.KindCount] > 300 || n != 6000-audit.StrangerLines {
			t.Errorf("%v, which count %d", lines, n)
		}
	})
}

func TestTooManyOpenCountsCloseTheOldestEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pipe{}
		tr := open(t, audit.Options{Stdout: out})
		for i := range 10_000 {
			ev := ping()
			ev.Call.Run = fmt.Sprint("run-", i)
			tr.observe(ev)
			if i%1000 == 999 {
				time.Sleep(time.Second)
			}
		}
		if n := strings.Count(out.String(), `"kind":"count"`); n != 10_000-4096 {
			t.Errorf("%d counts were closed early", n)
		}
		tr.close()
		if n := strings.Count(out.String(), `"kind":"count"`); n != 10_000 {
			t.Errorf("%d counts in all", n)
		}
	})
}

// pipe is a standard output that tests break.
type pipe struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	err   error
	takes int           // bytes before err
	block chan struct{} // holds a Write up until it is closed
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	block := p.block
	p.mu.Unlock()
	if block != nil {
		<-block
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return p.buf.Write(b)
	}
	n := min(p.takes, len(b))
	p.takes -= n
	p.buf.Write(b[:n])
	return n, p.err
}

func (p *pipe) set(err error, takes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.takes = err, takes
}

func (p *pipe) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}

func TestLinesWaitForASinkThatFailsAndFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space left on device")
		out, dir := &pipe{}, t.TempDir()
		file := filepath.Join(dir, "audit.jsonl")
		tr := open(t, audit.Options{File: file, Stdout: out})
		tr.observe(addTask())
		time.Sleep(time.Second)
		if !tr.Ready() {
			t.Error("not ready at the beginning")
		}
		out.set(full, 100) // it breaks off within a line
		tr.observe(addTask(), addTask())
		time.Sleep(3 * time.Second)
		if tr.Ready() {
			t.Error("ready while nothing can be written")
		}
		tr.observe(addTask())
		time.Sleep(time.Second)
		out.set(nil, 0)
		time.Sleep(2 * time.Second)
		if !tr.Ready() {
			t.Error("not ready when all is well again")
		}
		tr.close()
		want := "open use use use use close"
		if got := kinds(t, out.String()); got != want || read(t, file) != out.String() {
			t.Errorf("lines %s, want %s; the file:\n%s", got, want, read(t, file))
		}
		if reports := tr.reports(); len(reports) != 2 || !errors.Is(reports[0], full) || reports[1] != nil {
			t.Errorf("reported: %v", reports)
		}
		if tr.result(audit.ResultError) == 0 || tr.result(audit.ResultLost) != 0 || tr.result(audit.ResultOK) != 4 {
			t.Errorf("results %v", tr.results)
		}
	})
}

func TestWhatFindsNoRoomToWaitIsCountedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pipe{}
		tr := open(t, audit.Options{Stdout: out, Waiting: 2000})
		out.set(errors.New("broken"), 0)
		for range 50 {
			tr.observe(addTask())
		}
		time.Sleep(2 * time.Second)
		lost := tr.result(audit.ResultLost)
		if lost < 40 || lost >= 50 {
			t.Errorf("%d lost", lost)
		}
		out.set(nil, 0)
		time.Sleep(2 * time.Second)
		tr.close()
		if want := fmt.Sprintf(`"records":%d}`, lost); !strings.Contains(out.String(), want) {
			t.Errorf("%s is not told:\n%s", want, out)
		}
		if n := strings.Count(out.String(), `"kind":"use"`); n+lost != 50 {
			t.Errorf("%d lines and %d lost", n, lost)
		}
	})
}

func TestAFullQueueShedsAndIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pipe{block: make(chan struct{})}
		tr := open(t, audit.Options{Stdout: out, Queue: 10})
		synctest.Wait()
		for range 25 {
			tr.observe(addTask())
		}
		if tr.Ready() {
			t.Error("ready with a full queue")
		}
		if n := tr.result(audit.ResultLost); n != 15 {
			t.Errorf("%d lost, want 15", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tr.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close did not give up: %v", err)
		}
		if tr.observe(addTask()); tr.result(audit.ResultLost) != 16 || tr.Ready() {
			t.Error("a record after Close is not lost, or the trail ready")
		}
		close(out.block)
		tr.close()
		if got := kinds(t, out.String()); got != "open "+strings.Repeat("use ", 10)+"lost close" || !strings.Contains(out.String(), `"records":15}`) {
			t.Errorf("lines %s", got)
		}
	})
}

func TestTheNilTrailRecordsNothing(t *testing.T) {
	var tr *audit.Trail
	tr.Observe(t.Context(), addTask())
	tr.Executed(execution())
	tr.SetConfiguration("x")
	if err := tr.Close(t.Context()); err != nil || !tr.Ready() {
		t.Errorf("%v", err)
	}
	if _, err := audit.New(audit.Options{}); err == nil {
		t.Error("a trail to nowhere")
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	tr := open(t, audit.Options{Stdout: &bytes.Buffer{}, Queue: 1 << 16})
	ev := ping()
	if n := testing.AllocsPerRun(1000, func() { tr.Observe(context.Background(), ev) }); n > 0.5 {
		t.Errorf("%v allocations", n) // the writer's own are among them, and gathered
	}
	tr.close()
}

func BenchmarkObserve(b *testing.B) {
	for name, ev := range map[string]*gateway.Event{"counted": ping(), "line": addTask()} {
		b.Run(name, func(b *testing.B) {
			lost := 0
			tr, err := audit.New(audit.Options{File: filepath.Join(b.TempDir(), "audit.jsonl"), OnResult: func(result string, n int) {
				if result == audit.ResultLost {
					lost++ // by this goroutine alone: nothing fails here
				}
			}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				tr.Observe(context.Background(), ev)
			}
			b.StopTimer()
			b.ReportMetric(100*float64(lost)/float64(b.N), "%lost")
			if err := tr.Close(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
}
