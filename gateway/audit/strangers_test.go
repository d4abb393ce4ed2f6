package audit_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
)

func TestStrangersAreThoseWhomNobodyCanNameAndEnforceWouldRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		nobody := func(from string, o gateway.Outcome, r identity.Reason) *gateway.Event {
			ev := stranger("ping", from)
			ev.Decision.Outcome, ev.Decision.Reason, ev.Start = o, r, time.Now()
			return ev
		}
		named := addTask()
		named.Decision.Outcome, named.Decision.Reason = gateway.WouldRefuse, identity.LegacyExpired
		tr := open(t, audit.Options{File: file})
		tr.observe(nobody("192.0.2.9", gateway.WouldRefuse, identity.TokenAbsent)) // too long ago
		time.Sleep(48 * time.Hour)
		since := time.Now()
		for range 3 {
			tr.observe(nobody("192.0.2.7", gateway.WouldRefuse, identity.LegacyUnknown)) // counted, as pings are
		}
		tr.observe(nobody("192.0.2.8", gateway.WouldRefuse, identity.LegacyUnknown), nobody("192.0.2.8", gateway.Refused, identity.LegacyUnknown), named)
		tr.close()
		if err := os.Chtimes(file, time.Now(), time.Now()); err != nil { // the clock of the bubble is not the disk's
			t.Fatal(err)
		}
		got, broken, err := audit.Strangers([]string{file}, since)
		if err != nil || broken != 0 {
			t.Fatal(broken, err)
		}
		for i := range got {
			if got[i].Last.Before(since) {
				t.Errorf("%+v is of before", got[i])
			}
			got[i].Last = time.Time{}
		}
		scheme := identity.SchemeBasic.String()
		want := []audit.Stranger{
			{Reason: "legacy_unknown", Scheme: scheme, Client: "192.0.2.7", Requests: 3},
			{Reason: "legacy_unknown", Scheme: scheme, Client: "192.0.2.8", Requests: 1},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteString("no line of a trail\n")
		_ = f.Close()
		if err := os.Chtimes(file, time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if got, broken, err := audit.Strangers([]string{file}, since); err != nil || broken != 1 || len(got) != 2 {
			t.Errorf("with a line that is none: %v, %d broken, %v", got, broken, err)
		}
	})
	if _, _, err := audit.Strangers([]string{filepath.Join(t.TempDir(), "none")}, time.Time{}); err == nil {
		t.Error("a trail that is not there has no strangers")
	}
}
