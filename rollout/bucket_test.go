package rollout_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

var update = flag.Bool("update", false, "write golden files")

// TestBucketGolden pins algorithm 1. If it fails, the pipelines of every team
// would change sides: make a new algorithm in place of changing this one.
func TestBucketGolden(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# algorithm 1: team, key, hash, lowest percentage that selects the key")
	for _, team := range []identity.Team{"", "data-eng", "billing", "unassigned", "équipe"} {
		for _, key := range []string{
			"", "svc-etl", "svc-etl/LoadOrders", "svc-etl/ExtractOrders", "svc-billing/Invoice",
			"legacy:svc-etl/LoadOrders", "svc-etl/" + strings.Repeat("x", 100), "svc-etl/Größe",
		} {
			fmt.Fprintf(&out, "%q %q %016x %d\n", team, key, rollout.Bucket(team, key), rollout.Threshold(team, key))
		}
	}
	path := filepath.Join("testdata", "buckets.golden")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("buckets moved (-want +got):\n%s", diff)
	}
}

func TestRaisingNeverUnselects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		team := identity.Team(rapid.String().Draw(t, "team"))
		key := rapid.String().Draw(t, "key")
		low := rollout.Percent(rapid.IntRange(0, 100).Draw(t, "low"))
		high := rollout.Percent(rapid.IntRange(int(low), 100).Draw(t, "high"))
		if rollout.Selected(team, key, low) && !rollout.Selected(team, key, high) {
			t.Fatalf("%d selects %q of %q and %d does not", low, key, team, high)
		}
		if rollout.Selected(team, key, 0) || !rollout.Selected(team, key, 100) {
			t.Fatalf("0 selects %q of %q, or 100 does not", key, team)
		}
		if first := rollout.Threshold(team, key); !rollout.Selected(team, key, first) || rollout.Selected(team, key, first-1) {
			t.Fatalf("%d is not the lowest percentage that selects %q of %q", first, key, team)
		}
	})
}

// TestBucketsAreEven counts fixed keys: every one of the 100 slots gets its
// share within 5 standard deviations, and two teams agree on the first quarter
// as rarely as chance has it.
func TestBucketsAreEven(t *testing.T) {
	const n = 100_000
	var slots [101]int
	both := 0
	for i := range n {
		key := fmt.Sprintf("svc-%d/Pipeline%d", i%97, i)
		slots[rollout.Threshold("data-eng", key)]++
		if rollout.Selected("data-eng", key, 25) && rollout.Selected("billing", key, 25) {
			both++
		}
	}
	check := func(what string, got int, p float64) {
		if want, sigma := n*p, math.Sqrt(n*p*(1-p)); math.Abs(float64(got)-want) > 5*sigma {
			t.Errorf("%s: %d of %d, want about %.0f", what, got, n, want)
		}
	}
	for percent := 1; percent <= 100; percent++ {
		check(fmt.Sprint("slot ", percent), slots[percent], 0.01)
	}
	check("in the first quarter of both teams", both, 0.25*0.25)
}

func TestBucketAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { rollout.Selected("data-eng", "svc-etl/LoadOrders", 50) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSelected(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		rollout.Selected("data-eng", "svc-etl/LoadOrders", 50)
	}
}
