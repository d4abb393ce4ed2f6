package attest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/attest"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
)

var update = flag.Bool("update", false, "rewrite golden files")

var now = time.Date(2026, 5, 26, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// document is one with something of everything in it.
func document() attest.Document {
	f := readiness.Facts{
		Team: "growth", Now: now, Limits: readiness.DefaultLimits(), Since: now.Add(-40 * day), Requests: 10_000,
		State: rollout.State{Team: "growth", Percent: 100, RaisedAt: now.Add(-20 * day)},
		Accounts: map[string]readiness.Account{
			"svc-growth": {Legacy: true, OIDC: true, Owner: "Ana | growth"}, "svc-old": {Legacy: true},
		},
		Uses: map[string]evidence.Use{"svc-growth": {Legacy: now.Add(-9 * day), Token: now.Add(-time.Minute), Run: now.Add(-time.Minute)}},
		Days: make(map[evidence.Day]evidence.Daily),
	}
	for d := range 14 {
		at := now.Add(-time.Duration(d)*day - time.Hour)
		runs := make(map[evidence.RunKey]evidence.Run)
		for i := range 12 {
			r := evidence.Run{Account: "svc-growth", Pipeline: "Funnel", Token: true, Enforced: true, First: at.Add(time.Duration(i) * time.Minute)}
			if i == 0 && d == 7 {
				r.Grade, r.Reason, r.Worst, r.TraceID = evidence.WouldBreak, identity.Expired, r.First, "4bf92f3577b34da6a3ce929d0e0e4736"
				r.Detail = "ended 3 s before <b>\x1b[31m"
			}
			r.Last = r.First.Add(30 * time.Second)
			runs[evidence.NewRunKey("svc-growth", fmt.Sprint(d, i))] = r
		}
		f.Days[evidence.DayOf(at)] = evidence.Daily{Runs: runs}
	}
	r := readiness.Judge(f)
	r.InEffect = effect.Share{Day: "2026-05-25", Runs: 12, Selected: 12}
	history := []rollout.Entry{
		{Revision: 3, Kind: rollout.KindApply, At: now.Add(-20 * day), From: 50, To: 100, Actor: "lead@acme.example", Verified: true, Source: "api", Reason: "week 3", Evidence: "override: the audit is on Friday (aud_mismatch in svc-x, 3 runs)"},
		{Revision: 2, Kind: rollout.KindRequest, At: now.Add(-30 * day), From: 10, To: 50, Actor: "lead", Source: "file", Evidence: "1,100 clean runs; up to 100% possible"},
		{Revision: 1, Kind: rollout.KindSet, At: now.Add(-40 * day), To: 10, Actor: "root", Source: "cli", Reason: "pilot"},
	}
	gateways := []fleet.Replica{
		{ID: "b/2", Version: "1.0.0", Config: "c0ffee", Started: now.Add(-day), Seen: now.Add(-2 * time.Second)},
		{ID: "a/1", Version: "1.0.0", Config: "c0ffee", Started: now.Add(-day), Seen: now.Add(-time.Second)},
		{ID: "gone", Version: "0.9.0", Config: "old", Started: now.Add(-9 * day), Seen: now.Add(-8 * day)},
	}
	return attest.New(r, history, gateways, now)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (- file, + now); `go test ./rollout/attest -update` rewrites it:\n%s", file, diff)
	}
}

// forms are a document in both forms.
func forms(t *testing.T, d attest.Document) map[string][]byte {
	t.Helper()
	text, err := d.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"growth.md": d.Markdown(), "growth.json": text}
}

func TestADocumentIsTheSameTextEachTime(t *testing.T) {
	first, second := forms(t, document()), forms(t, document())
	for name, text := range first {
		golden(t, name, text)
		if !bytes.Equal(text, second[name]) {
			t.Errorf("%s differs from one time to the next", name)
		}
	}
}

func TestADigestIsOfEveryLine(t *testing.T) {
	for name, text := range forms(t, document()) {
		sum, err := attest.Verify(text)
		if err != nil || len(sum) != 64 || !bytes.Contains(text, []byte(sum)) {
			t.Fatalf("%s: %q, %v", name, sum, err)
		}
		// Each byte that is turned into another one shows, but in JSON the white space.
		for i := range text {
			if c := text[i]; c == ' ' || c == '\n' {
				continue
			}
			altered := bytes.Clone(text)
			altered[i] ^= 1
			if _, err := attest.Verify(altered); err == nil {
				t.Fatalf("%s: %q for %q at %d is not seen: ...%s", name, altered[i], text[i], i, text[max(0, i-20):i+1])
			}
		}
		for what, altered := range map[string][]byte{
			"a line more":         append(bytes.Clone(text), "and one more\n"...),
			"a line above":        append([]byte("Approved.\n"), text...),
			"a line less":         text[bytes.IndexByte(text, '\n')+1:],
			"cut":                 text[:len(text)/2],
			"nothing":             nil,
			"an empty value":      []byte("{}"),
			"a member more":       bytes.Replace(text, []byte(`"sha256"`), []byte(`"approved": true, "sha256"`), 1),
			"a document more":     bytes.Replace(text, []byte(`"document"`), []byte(`"document": {"team": "other"}, "document"`), 1),
			"another digest":      bytes.Replace(text, []byte(sum), []byte(strings.Repeat("0", 64)), 1),
			"a digest in capital": bytes.Replace(text, []byte(sum), []byte(strings.ToUpper(sum)), 1),
		} {
			if bytes.Equal(altered, text) {
				continue
			}
			if _, err := attest.Verify(altered); !errors.Is(err, attest.ErrAltered) && !errors.Is(err, attest.ErrForm) {
				t.Errorf("%s with %s: %v", name, what, err)
			}
		}
	}
}

func TestLinesBelowTheDigestAreAnAlterationAndNotAnotherKindOfFile(t *testing.T) {
	text := append(document().Markdown(), "Approved.\n"...)
	if _, err := attest.Verify(text); !errors.Is(err, attest.ErrAltered) {
		t.Errorf("%v, want %v", err, attest.ErrAltered)
	}
}

func TestARaiseThatNoCheckWasAskedAboutIsAnOverride(t *testing.T) {
	history := []rollout.Entry{
		{Revision: 3, Kind: rollout.KindSet, From: 100, To: 0, Reason: "lowered"},
		{Revision: 2, Kind: rollout.KindSet, From: 10, To: 100, Actor: "root", Source: "cli"},
		{Revision: 1, Kind: rollout.KindApply, From: 0, To: 10, Evidence: "1,100 clean runs; up to 100% possible"},
	}
	d := attest.New(readiness.Report{}, history, nil, now)
	if len(d.Overrides) != 1 || d.Overrides[0].Revision != 2 {
		t.Errorf("the overrides are %+v, want revision 2 alone", d.Overrides)
	}
}

func TestWhatEditorsAndToolsDoToWhiteSpaceIsNoAlteration(t *testing.T) {
	both := forms(t, document())
	if _, err := attest.Verify(bytes.ReplaceAll(both["growth.md"], []byte("\n"), []byte("\r\n"))); err != nil {
		t.Errorf("Markdown with CRLF: %v", err)
	}
	if _, err := attest.Verify(append(bytes.Clone(both["growth.md"]), "\n\n"...)); err != nil {
		t.Errorf("Markdown with empty lines behind it: %v", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, both["growth.json"]); err != nil {
		t.Fatal(err)
	}
	if _, err := attest.Verify(compact.Bytes()); err != nil {
		t.Errorf("JSON in a line: %v", err)
	}
}

func TestGatewaysThatDifferHaveNoConfigurationInCommon(t *testing.T) {
	alike := []fleet.Replica{{ID: "a", Config: "1", Seen: now}, {ID: "b", Config: "1", Seen: now}}
	differ := []fleet.Replica{{ID: "a", Config: "1", Seen: now}, {ID: "b", Config: "2", Seen: now}}
	for name, row := range map[string]struct {
		gateways []fleet.Replica
		want     string
	}{"none": {nil, ""}, "alike": {alike, "1"}, "differ": {differ, ""}} {
		if d := attest.New(readiness.Report{}, nil, row.gateways, now); d.Configuration != row.want {
			t.Errorf("%s: %q, want %q", name, d.Configuration, row.want)
		}
	}
}

// FuzzVerify: nothing that somebody sends breaks it, and what it accepts is what
// it would write again.
func FuzzVerify(f *testing.F) {
	d := document()
	text, err := d.JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(d.Markdown())
	f.Add([]byte(`{"document":{"kind":"crossfade evidence 1"},"sha256":""}`))
	f.Add([]byte("# crossfade evidence 1\nSHA-256 of all lines above: "))
	f.Fuzz(func(t *testing.T, text []byte) {
		sum, err := attest.Verify(text)
		if err == nil && !bytes.Contains(text, []byte(sum)) {
			t.Errorf("the digest %s is not in the text", sum)
		}
		if err != nil && !errors.Is(err, attest.ErrAltered) && !errors.Is(err, attest.ErrForm) {
			t.Errorf("an error of another kind: %v", err)
		}
	})
}
