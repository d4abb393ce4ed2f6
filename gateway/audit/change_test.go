package audit_test

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/rollout"
)

func TestAChangeOfARolloutHasALineOfItsOwnKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		tr := open(t, audit.Options{File: file})
		tr.SetConfiguration("c0ffee")
		at := time.Date(2026, 11, 25, 2, 0, 0, 0, time.UTC)
		was, is := rollout.State{Team: "data-eng", Percent: 10, Revision: 6}, rollout.State{Team: "data-eng", Percent: 50, Revision: 7, UpdatedAt: at}
		token := &identity.TokenInfo{Verified: true, Issuer: "https://idp.example", Subject: "0oa1", ID: "jti-1"}
		request := rollout.Change{
			Team: "data-eng", Kind: rollout.KindRequest, Percent: 50, Request: &rollout.Request{Percent: 50, At: at},
			Actor: "lea", Verified: true, Source: "api", Reason: "week 1\x1b[2J" + strings.Repeat("x", 600), Evidence: "30 clean runs", At: at,
		}
		tr.Changed(request, was, is, token, netip.MustParseAddr("fe80::1%eth0"))
		nameless := *token
		nameless.ID, nameless.Digest = "", "d1d2d3"
		tr.Changed(rollout.Change{Team: "data-eng", Kind: rollout.KindHold, Actor: "lea", Verified: true, At: at}, is, is, &nameless, netip.Addr{})
		forged := *token
		forged.Verified = false
		tr.Changed(rollout.Change{Team: "data-eng", Kind: rollout.KindSet, Actor: "one-time token", At: at}, is, was, &forged, netip.Addr{})
		tr.close()
		text := read(t, file)
		if got := kinds(t, text); got != "open change change change close" {
			t.Errorf("lines %s", got)
		}
		verify(t, file)

		fifty := 50
		want := []audit.Change{
			{
				Team: "data-eng", Change: "request", Revision: 7, From: 10, To: 50, Requested: &fifty, Actor: "lea", Verified: true,
				Issuer: "https://idp.example", Subject: "0oa1", TokenID: "jti-1", Source: "api",
				Reason:   "week 1\ufffd[2J" + strings.Repeat("x", 490) + "...",
				Evidence: "30 clean runs", Client: "fe80::1", Configuration: "c0ffee",
			},
			{
				Team: "data-eng", Change: "hold", Revision: 7, From: 50, To: 50, Actor: "lea", Verified: true,
				Issuer: "https://idp.example", Subject: "0oa1", TokenID: "d1d2d3", Configuration: "c0ffee",
			},
			{Team: "data-eng", Change: "set", Revision: 6, From: 50, To: 10, Actor: "one-time token", Configuration: "c0ffee"},
		}
		var got []audit.Change
		for line := range strings.Lines(text) {
			var l struct {
				audit.Header
				audit.Change
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			if l.Kind == audit.KindChange {
				got = append(got, l.Change)
				if !l.Time.Equal(at) {
					t.Errorf("a change of %s is told for %s", at, l.Time)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestTheNilTrailRecordsNoChange(t *testing.T) {
	var tr *audit.Trail
	tr.Changed(rollout.Change{}, rollout.State{}, rollout.State{}, nil, netip.Addr{})
}
