package demo

import (
	"encoding/json"

	"crossfade/gateway/identity"
)

// Summary is what the demo saw, by team. Its JSON is the output of
// `crossfade demo -o json`.
type Summary struct {
	Teams map[identity.Team]TeamSummary `json:"teams"`
}

// TeamSummary is what the demo saw of one team. Counts of requests go into the
// JSON, counts of runs are for the table alone.
type TeamSummary struct {
	// Percent is the share of the team that must use OIDC, 0 to 100.
	Percent int `json:"percent"`
	// Requests were judged; Allowed of them were forwarded, Refused were not.
	Requests int64 `json:"requests"`
	Allowed  int64 `json:"allowed"`
	Refused  int64 `json:"refused"`
	// Verdicts counts the shadow's verdicts, Reasons the primary reasons of
	// refusals and mismatches.
	Verdicts map[string]int64          `json:"verdicts"`
	Reasons  map[identity.Reason]int64 `json:"reasons"`

	// Runs were seen; EnforcedRuns of them had to use OIDC.
	Runs         int `json:"-"`
	EnforcedRuns int `json:"-"`
	// WouldBreakRuns, NoTokenRuns and RefusedRuns had at least one request
	// with that verdict, or that was refused.
	WouldBreakRuns int `json:"-"`
	NoTokenRuns    int `json:"-"`
	RefusedRuns    int `json:"-"`
}

// MarshalJSON implements json.Marshaler: nothing seen is {}, never null.
func (s Summary) MarshalJSON() ([]byte, error) {
	type plain Summary
	if s.Teams == nil {
		s.Teams = map[identity.Team]TeamSummary{}
	}
	return json.Marshal(plain(s))
}

// MarshalJSON implements json.Marshaler: nothing seen is {}, never null.
func (t TeamSummary) MarshalJSON() ([]byte, error) {
	type plain TeamSummary
	if t.Verdicts == nil {
		t.Verdicts = map[string]int64{}
	}
	if t.Reasons == nil {
		t.Reasons = map[identity.Reason]int64{}
	}
	return json.Marshal(plain(t))
}
