package readiness

import (
	"encoding/json"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
)

// Durations are seconds in JSON, with the unit in their names.

type plainCheck Check

type checkJSON struct {
	plainCheck
	Wait float64 `json:"wait_seconds,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (c Check) MarshalJSON() ([]byte, error) {
	return json.Marshal(checkJSON{plainCheck(c), c.Wait.Seconds()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *Check) UnmarshalJSON(text []byte) error {
	var j checkJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*c = Check(j.plainCheck)
	c.Wait = ofSeconds(j.Wait)
	return nil
}

type plainReport Report

type reportJSON struct {
	plainReport
	Late   float64 `json:"late_seconds,omitempty"`
	Wait   float64 `json:"wait_seconds,omitempty"`
	Window float64 `json:"window_seconds"`
}

// MarshalJSON implements json.Marshaler.
func (r Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(reportJSON{plainReport(r), r.Late.Seconds(), r.Wait.Seconds(), r.Window.Seconds()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Report) UnmarshalJSON(text []byte) error {
	var j reportJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*r = Report(j.plainReport)
	r.Late, r.Wait, r.Window = ofSeconds(j.Late), ofSeconds(j.Wait), ofSeconds(j.Window)
	return nil
}

func ofSeconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// Summary is a report in a line.
type Summary struct {
	Team identity.Team `json:"team"`
	At   time.Time     `json:"at"`
	// LateSeconds is how long before At the evidence ends; 0 where that is no more than
	// usual.
	LateSeconds float64         `json:"late_seconds,omitempty"`
	Phase       rollout.Phase   `json:"phase"`
	Percent     rollout.Percent `json:"percent"`
	// Requested is what the team asks for; nil for nothing.
	Requested *rollout.Percent `json:"requested,omitempty"`
	Answer    Answer           `json:"answer"`
	UpTo      rollout.Percent  `json:"up_to"`
	Why       string           `json:"why"`
	Owner     identity.Owner   `json:"owner,omitempty"`
	// WaitSeconds is how long it will take at the current rate, 0 if that is not
	// known.
	WaitSeconds float64 `json:"wait_seconds,omitempty"`
	// InEffect is of how many runs of a day the percentage is in effect.
	InEffect effect.Share `json:"in_effect"`
	// Problem is why nothing more is known; nil where the evidence could be read.
	Problem *Problem `json:"problem,omitempty"`
}

// LateText is that of the report.
func (s Summary) LateText() string { return lateText(ofSeconds(s.LateSeconds)) }

// Summary returns the report in a line.
func (r Report) Summary() Summary {
	return Summary{
		Team: r.Team, At: r.At, LateSeconds: r.Late.Seconds(), Phase: r.Phase, Percent: r.Percent, Requested: r.Requested, Answer: r.Answer, UpTo: r.UpTo,
		Why: r.Why, Owner: r.Owner, WaitSeconds: r.Wait.Seconds(), InEffect: r.InEffect, Problem: r.Problem,
	}
}
