// Package rollout decides which runs must authenticate by OIDC: the percentage
// of each team, the buckets that a percentage selects, the table that a replica
// keeps in memory, and the latches that keep a run from changing sides in its
// middle.
//
// The package knows no database. Store says what it needs of one; package
// redisstore provides it on Redis and package rollouttest in memory.
//
// A percentage is a migration control, not a security boundary: who knows its
// own principal can work out its bucket.
package rollout

import (
	"fmt"
	"strconv"
)

// Percent is the share of a team that must authenticate by OIDC: a whole
// number from 0 to 100. The zero value enforces nothing.
type Percent uint8

// Full is the percentage at which every run of a team must use OIDC.
const Full Percent = 100

// ParsePercent reads a percentage as people write it in files and arguments:
// digits only, without a sign, a fraction or a percent sign.
func ParsePercent(text string) (Percent, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > uint64(Full) {
		return 0, fmt.Errorf("percent %q: must be a whole number from 0 to 100", text)
	}
	return Percent(n), nil
}

// Validate returns an error when p is above 100.
func (p Percent) Validate() error {
	if p > Full {
		return fmt.Errorf("percent %d: must be a whole number from 0 to 100", uint8(p))
	}
	return nil
}

// String returns the number without a percent sign.
func (p Percent) String() string { return strconv.Itoa(int(p)) }

// Phase is what a team is. Its text is a metric label.
type Phase uint8

// The phases. The zero value is PhaseShadow.
const (
	PhaseShadow   Phase = iota // 0 percent: judged, nothing enforced
	PhaseRamp                  // 1 to 99 percent
	PhaseEnforced              // 100 percent
	PhaseRetired               // 100 percent for good; legacy credentials are refused whatever a latch says
)

// Phases lists every phase in declaration order, for series that must exist at
// zero.
func Phases() []Phase { return []Phase{PhaseShadow, PhaseRamp, PhaseEnforced, PhaseRetired} }

// String returns the label of the phase.
func (p Phase) String() string {
	switch p {
	case PhaseRamp:
		return "ramp"
	case PhaseEnforced:
		return "enforced"
	case PhaseRetired:
		return "retired"
	default:
		return "shadow"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler for the labels of Phases.
func (p *Phase) UnmarshalText(text []byte) error {
	for _, phase := range Phases() {
		if phase.String() == string(text) {
			*p = phase
			return nil
		}
	}
	return fmt.Errorf("%q is no phase of a team", clip(string(text)))
}

// Stickiness says what of a run is put into a bucket, and so what stays on one
// side of a percentage.
type Stickiness uint8

// The kinds of stickiness. The zero value is StickPipeline, Luigi's default.
const (
	// StickPipeline buckets principal and pipeline: the same pipelines every
	// night and at every retry.
	StickPipeline Stickiness = iota
	// StickPrincipal buckets the principal alone.
	StickPrincipal
	// StickRun buckets principal and run, so a retry may change sides.
	StickRun
)

// String returns the word of the configuration.
func (s Stickiness) String() string {
	switch s {
	case StickPrincipal:
		return "principal"
	case StickRun:
		return "run"
	default:
		return "pipeline"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (s Stickiness) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Stickiness) UnmarshalText(text []byte) error {
	for _, known := range [...]Stickiness{StickPipeline, StickPrincipal, StickRun} {
		if known.String() == string(text) {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("stickiness %q: must be pipeline, principal or run", text)
}
