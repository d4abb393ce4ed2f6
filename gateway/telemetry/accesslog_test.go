package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/gateway/telemetry"
)

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// lines are events as they differ in the log.
func lines() []*gateway.Event {
	nobody := &gateway.Event{Start: noon(), Method: "POST", Path: "/api/ping", Status: 400, Duration: 80 * time.Microsecond}
	observed := refused()
	observed.Mode, observed.Decision.Outcome = gateway.Observe, gateway.WouldRefuse
	shed := event()
	shed.Shadow = shadow.Result{Verdict: shadow.NotEvaluated, Reason: identity.ShadowShed, Evidence: shadow.EvidenceClient}
	down := event()
	down.Status, down.Duration = 502, 3*time.Second
	down.UpstreamErr = errors.New("dial tcp 127.0.0.1:8083: connect: connection refused")
	left := event()
	left.Status, left.UpstreamErr, left.Sent = 0, context.Canceled, 0
	keys := event()
	keys.Presented = gateway.PresentedSchemes{Token: true}
	keys.Legacy, keys.Principal = nil, identity.Principal{}
	keys.Decision = gateway.Decision{Outcome: gateway.Unavailable, Reason: identity.JWKSUnavailable, Control: gateway.SideToken}
	keys.Status, keys.UpstreamTime, keys.Shadow = 503, 0, shadow.Result{Verdict: shadow.NotEvaluated, Evidence: shadow.EvidenceClient}
	guess := wrongPassword()
	guess.Mode, guess.Decision.Outcome = gateway.Observe, gateway.WouldRefuse
	stranger := event()
	stranger.Principal = identity.Principal{Name: "svc-billing", Team: "billing", Mapped: true}
	stranger.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.WorkerMismatch, Control: gateway.SideLegacy}
	stranger.Other, stranger.UpstreamTime, stranger.ClientRun = "svc-etl", 0, "nightly-4711.1"
	open := event()
	open.Shadow = shadow.Result{Verdict: shadow.WouldOpen, Reason: identity.ActionDenied, Evidence: shadow.EvidenceClient}
	guessDown := wrongPassword()
	guessDown.Mode, guessDown.Decision.Outcome = gateway.Observe, gateway.WouldRefuse
	guessDown.Status, guessDown.UpstreamErr = 502, errors.New("connection refused")
	return []*gateway.Event{
		event(), refused(), observed, shed, down, left, keys, nobody,
		guess, tooMany(), stranger, open, guessDown,
	}
}

// wrongPassword is event with a password that is wrong.
func wrongPassword() *gateway.Event {
	ev := event()
	ev.Legacy, ev.Principal = identity.Reject("", identity.LegacyUnknown), identity.Principal{}
	ev.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyUnknown, Control: gateway.SideLegacy}
	ev.Shadow = shadow.Result{Verdict: shadow.MatchDeny, Reason: identity.LegacyUnknown, Evidence: shadow.EvidenceNone}
	ev.UpstreamTime, ev.Status = 0, 401
	return ev
}

// tooMany is a guess that was held up.
func tooMany() *gateway.Event {
	ev := wrongPassword()
	ev.Legacy = &identity.Authentication{
		Status: identity.StatusUnavailable, Reasons: []identity.Reason{identity.Throttled}, RetryAfter: time.Second,
	}
	ev.Decision.Reason, ev.Throttled = identity.Throttled, true
	ev.Shadow = shadow.Result{Verdict: shadow.Indeterminate, Reason: identity.Throttled, Evidence: shadow.EvidenceNone}
	ev.Status = 429
	return ev
}

func TestEverySignalHasItsCodeAndLevel(t *testing.T) {
	for _, reason := range gateway.SignalReasons() {
		ev := event()
		switch ev.Decision = (gateway.Decision{Outcome: gateway.WouldRefuse, Reason: reason, Control: gateway.SideLegacy}); reason {
		case identity.Throttled:
			ev.Throttled = true
		default:
			if _, ok := ev.Signal(); !ok { // only a verdict has it
				ev.Shadow = shadow.Result{Verdict: shadow.IdentityDrift, Reason: reason}
			}
		}
		var got struct{ Level, Code string }
		if err := json.Unmarshal(telemetry.AppendJSON(nil, ev), &got); err != nil {
			t.Fatal(err)
		}
		if got.Level != "WARN" || got.Code != "security."+string(reason) {
			t.Errorf("%s: level %s, code %q", reason, got.Level, got.Code)
		}
	}
}

func TestAccessLineGolden(t *testing.T) {
	cases := []struct {
		name, file, noColor string
		options             telemetry.Options
	}{
		{"JSON is the default", "access.json.golden", "", telemetry.Options{}},
		{"text", "access.text.golden", "", telemetry.Options{AccessLogFormat: "text"}},
		{"text in colour", "access.color.golden", "", telemetry.Options{AccessLogFormat: "text", AccessLogColor: true}},
		{"NO_COLOR outranks colour", "access.text.golden", "1", telemetry.Options{AccessLogFormat: "text", AccessLogColor: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", c.noColor)
			var out buffer
			c.options.AccessLog = &out
			tel := start(t, c.options)
			for _, ev := range lines() {
				tell(tel, ev)
			}
			if err := tel.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			golden(t, c.file, out.String())
		})
	}
}

// hostile is everything a client would like to write into a log.
const hostile = "a\" b\\ \r\n{\"level\":\"INFO\"}\x00\x1b[2J\x1b]0;owned\a\x7f\u009b31m\u202eevil\u2028\U000e0001\xff\xc3("

func TestNobodyWritesLinesOfTheirOwn(t *testing.T) {
	ev := event()
	ev.Method, ev.Path, ev.UserAgent, ev.TraceID = hostile, hostile, hostile, hostile
	ev.Principal.Name, ev.Principal.Team = hostile, hostile
	ev.Call.Run, ev.Call.Family, ev.Call.Method = hostile, hostile, hostile
	ev.Asked, ev.Fault = hostile, hostile
	ev.Other, ev.Shadow = hostile, shadow.Result{Verdict: shadow.IdentityDrift, Reason: hostile}
	ev.UpstreamErr = errors.New(hostile)
	for _, c := range []struct {
		name   string
		append func([]byte, *gateway.Event) []byte
	}{{"JSON", telemetry.AppendJSON}, {"text", telemetry.AppendPlain}} {
		t.Run(c.name, func(t *testing.T) { checkLine(t, string(c.append(nil, ev)), c.name == "JSON") })
	}
	var got map[string]any
	if err := json.Unmarshal(telemetry.AppendJSON(nil, ev), &got); err != nil {
		t.Fatal(err)
	}
	if want := string([]rune(hostile)); got["user_agent"] != want {
		t.Errorf("user_agent %q, want %q", got["user_agent"], want)
	}
}

// checkLine proves that a line is one line, harmless on a terminal, and JSON.
func checkLine(t *testing.T, line string, isJSON bool) {
	t.Helper()
	body, ok := strings.CutSuffix(line, "\n")
	if !ok || strings.ContainsAny(body, "\r\n\u2028\u2029\x1b") || !utf8.ValidString(body) {
		t.Fatalf("not one clean line: %q", line)
	}
	for _, r := range body {
		if !unicode.IsPrint(r) {
			t.Fatalf("%U stands in %q", r, line)
		}
	}
	if !isJSON {
		return
	}
	var fields map[string]any
	decoder := json.NewDecoder(strings.NewReader(body))
	if err := decoder.Decode(&fields); err != nil {
		t.Fatalf("not JSON: %v: %q", err, line)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("more than one value: %q", line)
	}
	if fields["msg"] != "request" {
		t.Fatalf("msg %q", fields["msg"])
	}
}

func FuzzAccessLine(f *testing.F) {
	f.Add(hostile, "worker", uint16(200))
	f.Add("\xed\xa0\x80", strings.Repeat("\u20ac", 300), uint16(0))
	f.Add("", "", uint16(65535))
	f.Fuzz(func(t *testing.T, path, run string, status uint16) {
		ev := event()
		ev.Path, ev.UserAgent, ev.Principal.Name, ev.Call.Run, ev.Status = path, path, run, run, int(status)
		line := telemetry.AppendJSON(nil, ev)
		checkLine(t, string(line), true)
		if len(line) > 16<<10 {
			t.Errorf("a line of %d bytes", len(line))
		}
		checkLine(t, string(telemetry.AppendPlain(nil, ev)), false)
	})
}

func TestLongValuesAreCut(t *testing.T) {
	ev := event()
	long := strings.Repeat("\u20ac", 1<<20)
	ev.Method, ev.Path, ev.UserAgent, ev.Principal.Name, ev.Call.Run, ev.Call.Family = long, long, long, long, long, long
	ev.Other = long
	ev.UpstreamErr = errors.New(long)
	for _, line := range [][]byte{telemetry.AppendJSON(nil, ev), telemetry.AppendPlain(nil, ev)} {
		if len(line) > 4<<10 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	var got map[string]any
	if err := json.Unmarshal(telemetry.AppendJSON(nil, ev), &got); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("\u20ac", 200/3) + "..."; got["run"] != want {
		t.Errorf("run %q, want %q: not cut between letters", got["run"], want)
	}
}

func TestSecretsOfTheQueryStayOut(t *testing.T) {
	var out buffer
	tel := start(t, telemetry.Options{AccessLog: &out})
	ctx, _ := tel.Begin(request("GET", "/?access_token=s3cret"))
	tel.Observe(ctx, event())
	if err := tel.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "s3cret") {
		t.Error(out.String())
	}
}

func TestLinesAreWrittenWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out buffer
		tel := start(t, telemetry.Options{AccessLog: &out})
		for range 3 {
			tell(tel, event())
			time.Sleep(time.Second) // of the bubble's clock
			synctest.Wait()
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("%d lines after three seconds, want 3", n)
		}
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestAStuckLogCostsLinesAndNothingElse(t *testing.T) {
	release := make(chan struct{})
	var out buffer
	tel := start(t, telemetry.Options{AccessLog: writer(func(b []byte) (int, error) {
		<-release
		return out.Write(b)
	})})
	const n = 30_000 // more than the buffers hold
	for range n {
		tell(tel, event())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tel.Close(ctx); err == nil {
		t.Error("Close waited for a writer that is stuck, or did not say so")
	}
	close(release)
	if err := tel.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	tell(tel, event()) // after Close: lost, not a crash
	written := strings.Count(out.String(), "\n")
	if written == 0 || written == n {
		t.Fatalf("%d lines written", written)
	}
	want := fmt.Sprintf("crossfade_access_log_lost_total %d\n", n+1-written)
	if got := samples(t, tel, "crossfade_access_log_lost_total"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAFailingLogIsCountedAndReported(t *testing.T) {
	var reports []error
	full := errors.New("disk full")
	tel := start(t, telemetry.Options{
		AccessLog: writer(func([]byte) (int, error) { return 0, full }),
		Report:    func(err error) { reports = append(reports, err) },
	})
	for range 5 {
		tell(tel, event())
	}
	if err := tel.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := samples(t, tel, "crossfade_access_log_lost_total"); got != "crossfade_access_log_lost_total 5\n" {
		t.Errorf("got %q", got)
	}
	if len(reports) != 1 || !errors.Is(reports[0], full) {
		t.Errorf("reports: %v", reports)
	}
}
