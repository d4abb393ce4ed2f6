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

// TeamSummary is what the demo saw of one team. What is for the table alone does
// not go into the JSON.
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
	// Answer is the word of the readiness report, UpTo how far the team may be
	// raised by it, and Why its reason. Empty while nothing could be read.
	Answer string `json:"answer"`
	UpTo   int    `json:"up_to"`
	Why    string `json:"why"`

	// Raise is the answer for the table, and what deserves which color of it.
	Raise Raise `json:"-"`
	// InEffect is of how many of the day's runs the percentage is in effect.
	InEffect string `json:"-"`
	// WouldBreakRuns, NoTokenRuns and RefusedRuns had at least one request
	// with that verdict, or that was refused.
	WouldBreakRuns int `json:"-"`
	NoTokenRuns    int `json:"-"`
	RefusedRuns    int `json:"-"`
	// News are lines about the team below the table: what became of what it asks for.
	News []string `json:"-"`
}

// Raise says whether a team may be raised.
type Raise struct {
	// Text is for the table, as in "YES, to 100%".
	Text string
	Mood Mood
}

// Mood is how good it is what something says.
type Mood uint8

// The moods; the zero value is neither good nor bad.
const (
	Neutral Mood = iota
	Good
	Patient
	Bad
)

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
