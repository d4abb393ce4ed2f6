package evidence_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

// anyRequest is a run of one request, as a gateway sees it. What is told of requests
// that are alike follows from when they came.
func anyRequest(t *rapid.T) evidence.Run {
	n := rapid.IntRange(0, 1000).Draw(t, "when")
	g := rapid.SampledFrom(evidence.Grades()).Draw(t, "grade")
	at := time.UnixMilli(1_767_225_600_000 + int64(n)).UTC()
	r := evidence.Run{
		Account: "svc", Grade: g, Worst: at, First: at, Last: at,
		Broke: g == evidence.WouldBreak, Tokenless: g == evidence.NoToken, Unjudged: g == evidence.Indeterminate,
	}
	if g != evidence.Clean {
		r.Reason = []identity.Reason{identity.RoleMissing, identity.PrincipalMismatch, identity.ActionDenied}[n%3]
		r.TraceID, r.Detail = fmt.Sprint(g, n), fmt.Sprint("detail ", g, n)
	}
	if g == evidence.NoToken {
		r.Reason = identity.TokenAbsent
	}
	return r
}

func merged(all []evidence.Run) (r evidence.Run) {
	for _, one := range all {
		r = r.Merge(one)
	}
	return r
}

func TestMergingRunsDependsOnNoOrderAndNoRepetition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(anyRequest), 1, 8).Draw(t, "requests")
		// Of two that came at once and are equally bad, either may be named.
		all = slices.CompactFunc(all, func(a, b evidence.Run) bool { return a.Worst.Equal(b.Worst) && a.Grade == b.Grade })
		want := merged(all)
		cut := rapid.IntRange(0, len(all)).Draw(t, "cut")
		shuffled := rapid.Permutation(append(slices.Clone(all), all[:cut]...)).Draw(t, "shuffled")
		half := rapid.IntRange(0, len(shuffled)).Draw(t, "half")
		if diff := cmp.Diff(want, merged(shuffled[:half]).Merge(merged(shuffled[half:]))); diff != "" {
			t.Fatalf("in another order (-want +got):\n%s", diff)
		}
	})
}

func TestARunThatBrokeBeforeThatWasNotedStaysOne(t *testing.T) {
	at := time.UnixMilli(1_767_225_600_000).UTC()
	old := evidence.Run{Account: "svc", Grade: evidence.WouldBreak, Reason: identity.AudMismatch, Worst: at, First: at, Last: at, Token: true}
	signal := evidence.Run{Account: "svc", Grade: evidence.WouldOpen, Reason: identity.RoleMissing, Worst: at.Add(time.Second), First: at, Last: at, Token: true}
	for _, run := range []evidence.Run{old.Merge(signal), signal.Merge(old)} {
		left := run.Without(func(evidence.Signal) bool { return true })
		if left.Grade != evidence.WouldBreak || left.Reason != identity.AudMismatch || !left.Worst.Equal(at) {
			t.Errorf("without its signal it is %+v", left)
		}
	}
}

// TestARunWithoutASignalIsTheRunOfItsOtherRequests: what is left of a run is what the
// requests that are no dropped signals are, but for the detail of a lesser signal.
func TestARunWithoutASignalIsTheRunOfItsOtherRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(anyRequest), 1, 8).Draw(t, "requests")
		dropped := rapid.SampledFrom([]identity.Reason{identity.RoleMissing, identity.PrincipalMismatch, identity.ActionDenied}).Draw(t, "dropped")
		var rest []evidence.Run
		for _, r := range all {
			if !r.Grade.Signal() || r.Reason != dropped {
				rest = append(rest, r)
			}
		}
		whole := merged(all)
		got, want := whole.Without(func(s evidence.Signal) bool { return s.Reason == dropped }), merged(rest)
		if got.Grade != want.Grade || got.Broke != want.Broke || got.Tokenless != want.Tokenless || got.Unjudged != want.Unjudged {
			t.Fatalf("%+v\nwant\n%+v", got, want)
		}
		if diff := cmp.Diff(want.Signals().All(), got.Signals().All()); diff != "" {
			t.Fatalf("signals (-want +got):\n%s", diff)
		}
		if want.Grade.Bad() && (got.Reason != want.Reason || !got.Worst.Equal(want.Worst)) {
			t.Fatalf("%s at %s, want %s at %s", got.Reason, got.Worst, want.Reason, want.Worst)
		}
		if want.Grade == evidence.WouldBreak && (got.Detail != want.Detail || got.TraceID != want.TraceID) {
			t.Fatalf("%q of %s, want %q of %s", got.Detail, got.TraceID, want.Detail, want.TraceID)
		}
	})
}

func FuzzSignals(f *testing.F) {
	f.Add("4 role_missing 1767225600000 4bf9")
	f.Add("5 a 1 ;4 b -1 x;;3 c 1 y;9 d 2 z;4 a b")
	f.Add("4  0 ")
	f.Add("4 a+b%3B 0 x%zz")
	f.Fuzz(func(t *testing.T, text string) {
		all := evidence.Signals(text).All()
		again := evidence.SignalsOf(all)
		if evidence.SignalsOf(again.All()) != again {
			t.Errorf("%q is read as %v, written as %q", text, all, again)
		}
		for _, s := range all {
			if !s.Grade.Signal() {
				t.Errorf("%+v", s)
			}
		}
	})
}
