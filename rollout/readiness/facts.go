package readiness

import (
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// Facts are all that a team's report stands on.
type Facts struct {
	Team identity.Team
	// Now is the time that the report is of.
	Now time.Time
	// Until is up to when what the gateways observed is part of the evidence: what is
	// younger may still be on its way. Zero for all of it, as any time after Now.
	Until time.Time
	// State is the live rollout; the zero value is a team that was never written.
	State  rollout.State
	Limits Limits
	// Days are the days of the window and later, in any order; days that nothing
	// is known of may be left out.
	Days map[evidence.Day]evidence.Daily
	// Since is when the team was first seen; zero for never.
	Since time.Time
	// Missing is how many requests of the team the gateways have lost within the
	// window, and Requests how many of it they recorded.
	Missing, Requests int64
	// Unwatched is for how much of the window a gateway lost requests of which nobody
	// knows the team.
	Unwatched time.Duration
	// Uses is when accounts were last seen, Families when their task families were.
	Uses     map[string]evidence.Use
	Families map[evidence.Family]evidence.FamilyUse
	// Accounts are the team's in the configuration, by name.
	Accounts map[string]Account
	// Config returns the hash of what judges an account in the running
	// configuration. Nil is for who does not know that: then it is the one under
	// which the account was judged last.
	Config func(account string) string
	// Skewed tells that gateways serve by configurations that differ.
	Skewed bool
	// Unassigned are accounts of nobody that used a static credential within the
	// time that retirement looks back, in order. UnassignedAway tells that they cannot
	// be read.
	Unassigned     []string
	UnassignedAway bool
	// Fixed are the failures that the team's file calls fixed, Waivers the security
	// signals that the platform's calls known.
	Fixed   []Fix
	Waivers []Waiver
	// Younger, if not zero, leaves out the runs that started before it, but no
	// security signal: those stay until the window or a waiver ends them.
	Younger time.Time
	// Key is what selects a run at a percentage, of account and pipeline; nil for
	// runs that are selected one by one.
	Key func(account, pipeline string) string
}

// Account is an account as the configuration has it.
type Account struct {
	// Owner is whom to ask about it; "" if nobody is named.
	Owner string
	// Legacy tells that it has a static credential, OIDC that it is mapped to an
	// identity of a provider.
	Legacy, OIDC bool
}

// Fix records that a failure was repaired: the runs of the account and pipeline
// that started before At leave the numbers, unless the failure has come again
// since. Those that went wrong for another reason stay.
type Fix struct {
	Account, Pipeline string
	Reason            identity.Reason
	At                time.Time
}

// Waiver says that a security signal is known and accepted for a time.
type Waiver struct {
	// Account and Reason name the signals; each is required.
	Account string
	Reason  identity.Reason
	// Owner is who answers for it and Why is why, Until when it ends.
	Owner, Why string
	Until      time.Time
}
