package evidence_test

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

func TestLossesOfATeam(t *testing.T) {
	from := time.Date(2126, 5, 1, 0, 0, 0, 0, time.UTC)
	to := from.Add(time.Hour)
	gap := func(replica string, team identity.Team, begin, end int, n int64) evidence.Gap {
		return evidence.Gap{Replica: replica, Team: team, From: from.Add(time.Duration(begin) * time.Minute), To: from.Add(time.Duration(end) * time.Minute), Requests: n}
	}
	for name, test := range map[string]struct {
		gaps     []evidence.Gap
		requests int64
		unknown  time.Duration
	}{
		"nothing is lost": {nil, 0, 0},
		"its own add up, also of one time": {[]evidence.Gap{
			gap("a", "team", 1, 2, 3), gap("b", "team", 1, 2, 4),
		}, 7, 0},
		"its own of nobody knows how many by time":   {[]evidence.Gap{gap("a", "team", 1, 3, 0), gap("b", "", 2, 4, 9), gap("c", "other", 5, 6, 0)}, 0, 3 * time.Minute},
		"those of another team are none":             {[]evidence.Gap{gap("a", "other", 1, 2, 3)}, 0, 0},
		"those of nobody knows whom count by time":   {[]evidence.Gap{gap("a", "", 1, 3, 1_000_000)}, 0, 2 * time.Minute},
		"times of several replicas count once":       {[]evidence.Gap{gap("a", "", 1, 5, 1), gap("b", "", 4, 6, 1), gap("c", "", 2, 3, 1)}, 0, 5 * time.Minute},
		"times apart add up, in any order":           {[]evidence.Gap{gap("a", "", 50, 51, 1), gap("a", "", 1, 2, 1)}, 0, 2 * time.Minute},
		"what is outside is no part":                 {[]evidence.Gap{gap("a", "", -9, 0, 1), gap("a", "team", -9, 0, 1), gap("b", "", 61, 62, 1)}, 0, 0},
		"of what reaches in the time inside counts":  {[]evidence.Gap{gap("a", "", -9, 1, 1), gap("b", "", 59, 70, 1)}, 0, 2 * time.Minute},
		"of its own that reach in all requests do":   {[]evidence.Gap{gap("a", "team", -9, 1, 5)}, 5, 0},
		"all of the time is no more than all of it":  {[]evidence.Gap{gap("a", "", -9, 90, 1), gap("b", "", -9, 90, 1)}, 0, time.Hour},
		"a gap that ends before it began is nothing": {[]evidence.Gap{gap("a", "", 9, 3, 1)}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if requests, unknown := evidence.Losses(test.gaps, "team", from, to); requests != test.requests || unknown != test.unknown {
				t.Errorf("%d requests and %s, want %d and %s", requests, unknown, test.requests, test.unknown)
			}
		})
	}
}

func TestLossesOfOtherTeamsChangeNothing(t *testing.T) {
	from := time.Date(2126, 5, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var without, all []evidence.Gap
		for range rapid.IntRange(0, 9).Draw(t, "gaps") {
			begin := from.Add(time.Duration(rapid.IntRange(-9, 69).Draw(t, "from")) * time.Minute)
			g := evidence.Gap{
				Replica: "a", Team: rapid.SampledFrom([]identity.Team{"", "team", "other"}).Draw(t, "team"), From: begin,
				To: begin.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "minutes")) * time.Minute), Requests: rapid.Int64Range(1, 1e9).Draw(t, "requests"),
			}
			all = append(all, g)
			if g.Team != "other" {
				without = append(without, g)
			}
		}
		n, d := evidence.Losses(all, "team", from, from.Add(time.Hour))
		m, e := evidence.Losses(without, "team", from, from.Add(time.Hour))
		if n != m || d != e || d < 0 || d > time.Hour {
			t.Fatalf("%d and %s with the others, %d and %s without", n, d, m, e)
		}
	})
}

func TestAGapOfBeforeThereWereTeamsIsRead(t *testing.T) {
	var g evidence.Gap
	if err := json.Unmarshal([]byte(`{"replica":"a","from":"2126-05-01T00:00:00Z","to":"2126-05-01T00:01:00Z","requests":7}`), &g); err != nil || g.Team != "" || g.Requests != 7 {
		t.Errorf("%+v, %v", g, err)
	}
	if joined, ok := g.Join(evidence.Gap{Replica: "a", Team: "team", From: g.From, To: g.To, Requests: 1}); ok {
		t.Errorf("it is one with that of a team: %+v", joined)
	}
}
