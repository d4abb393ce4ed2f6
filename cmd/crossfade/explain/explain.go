// Package explain says of a line of the audit trail why a request was decided as
// it was, and what the same request would get today. It is pure, and says only
// what the line and the present configuration prove: the credential itself is
// kept nowhere.
package explain

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout/readiness"
)

// Explanation is what can be said of one line.
type Explanation struct {
	Trace string    `json:"trace_id"`
	At    time.Time `json:"at"`
	// Count is how many requests the line stands for, since First; the trace is
	// that of the first of them. 1 for a line of its own.
	Count int64     `json:"count"`
	First time.Time `json:"first,omitzero"`
	// Kind is that of the line: a use, a count, a task or a probe.
	Kind audit.Kind `json:"kind"`

	Outcome string         `json:"outcome"`
	Reason  string         `json:"reason,omitempty"`
	Means   string         `json:"means,omitempty"`
	Owner   identity.Owner `json:"owner,omitempty"`
	Do      string         `json:"do,omitempty"`
	// Detail is what was found and what was expected, for operators.
	Detail string `json:"detail,omitempty"`
	// Why are further sentences on the decision.
	Why    []string `json:"why,omitempty"`
	Mode   string   `json:"mode,omitempty"`
	Status int      `json:"status,omitempty"`

	// Account is empty when nobody was verified.
	Account  string `json:"account,omitempty"`
	Team     string `json:"team,omitempty"`
	Verified bool   `json:"verified"`
	// Other is whom the worker or task of the request belongs to, if not Account.
	Other     string       `json:"other,omitempty"`
	Presented []Credential `json:"presented"`

	Call     Call     `json:"call"`
	Percent  *int     `json:"percent,omitempty"`
	Pipeline string   `json:"pipeline,omitempty"`
	Bucket   *Bucket  `json:"bucket,omitempty"`
	Verdict  *Verdict `json:"verdict,omitempty"`

	Line Line `json:"line"`
	// Now is what the same request would get under the present configuration, and
	// Unknown what nobody can say.
	Now     []string `json:"now,omitempty"`
	Unknown []string `json:"unknown,omitempty"`
}

// Credential is one that was presented, without any of its secret.
type Credential struct {
	Scheme string `json:"scheme"`
	// Governs tells the one that decided; the other was only evaluated.
	Governs bool   `json:"governs"`
	Name    string `json:"name,omitempty"`
	Status  string `json:"status,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Means   string `json:"means,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	// Unverified is what the credential says of itself, for which nobody vouches.
	Unverified string `json:"unverified,omitempty"`
}

// Call is what was asked for. Claimed tells that nobody was verified, so all of it
// is the client's word.
type Call struct {
	Action    string `json:"action,omitempty"`
	RPC       string `json:"rpc,omitempty"`
	Method    string `json:"method,omitempty"`
	Path      string `json:"path,omitempty"`
	Family    string `json:"family,omitempty"`
	Run       string `json:"run,omitempty"`
	ClientRun string `json:"client_run,omitempty"`
	Task      string `json:"task,omitempty"`
	Client    string `json:"client,omitempty"`
	Claimed   bool   `json:"claimed,omitempty"`
}

// Bucket is where a key lies: From is the lowest percentage that selects it, under
// the present stickiness.
type Bucket struct {
	Key  string `json:"key"`
	From int    `json:"selected_from"`
}

// Verdict is the shadow's.
type Verdict struct {
	Verdict string         `json:"verdict"`
	Means   string         `json:"means,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Why     string         `json:"why,omitempty"`
	Owner   identity.Owner `json:"owner,omitempty"`
	Do      string         `json:"do,omitempty"`
}

// Line is where the trail tells it, and whether the line behind it names it.
type Line struct {
	File    string     `json:"file"`
	Line    int        `json:"line"`
	Replica string     `json:"replica"`
	Seq     int64      `json:"seq"`
	Seal    audit.Seal `json:"seal"`
	// Configuration is the hash of the one in force then.
	Configuration string `json:"configuration,omitempty"`
}

// means are sentences for the verdicts.
var means = map[shadow.Verdict]string{
	shadow.MatchAllow:    "Password and token would both be let in, as the same account with the same rights.",
	shadow.MatchDeny:     "Neither credential would be let in.",
	shadow.WouldBreak:    "The static credential was good; the token that was sent would not be let in.",
	shadow.NoToken:       "The static credential was good; no token was sent.",
	shadow.WouldOpen:     "The roles of the static credential deny what the token would allow: a security signal.",
	shadow.LegacyLapsed:  "The static credential was not good, the token is.",
	shadow.IdentityDrift: "Both credentials would be let in, as another account, team or permission: a security signal.",
	shadow.Indeterminate: "The token could not be judged, through no fault of the client.",
	shadow.NotEvaluated:  "There was nothing to compare, or no room to.",
}

// Explain explains a line. A nil present says nothing about today.
func Explain(h audit.Hit, present *Present) Explanation {
	e := Explanation{
		At: h.Time, Count: 1, Kind: h.Kind,
		Line: Line{File: h.File, Line: h.Line, Replica: h.Replica, Seq: h.Seq, Seal: h.Seal},
	}
	switch {
	case h.Use != nil:
		e.use(h.Use, present)
	case h.Task != nil:
		e.task(h.Task)
	case h.Probe != nil:
		e.probe(h.Probe)
	}
	e.explain()
	return e
}

// explain adds the fixed sentences of the reason.
func (e *Explanation) explain() {
	if e.Reason == "" {
		return
	}
	info, known := identity.Reason(e.Reason).Info()
	if !known {
		e.Means = "This version does not know the reason."
		return
	}
	e.Means, e.Owner, e.Do = info.Means, info.Owner, readiness.Advice(info.Reason)
}

func (e *Explanation) use(u *audit.Use, present *Present) {
	e.Trace, e.Line.Configuration = u.TraceID, u.Configuration
	e.Outcome, e.Reason, e.Detail, e.Mode, e.Status = u.Outcome, u.Reason, u.Detail, u.Mode, u.Status
	if u.N > 0 {
		e.Count, e.First = u.N, u.First
	}
	e.Account, e.Team, e.Verified, e.Other = u.Principal, u.Team, u.Principal != "", u.Other
	e.Call = Call{
		Action: u.Action, RPC: u.RPC, Method: u.Method, Path: u.Path, Family: u.Family, Run: u.Run, ClientRun: u.ClientRun, Client: u.Client,
	}
	if word := u.Unverified; word != nil && !e.Verified {
		e.Call.RPC, e.Call.Path, e.Call.Family = word.RPC, word.Path, word.Family
		e.Call.Run, e.Call.ClientRun, e.Call.Claimed = word.Run, word.ClientRun, true
	}
	e.Percent, e.Pipeline = u.Percent, u.Pipeline
	e.Presented = presented(u)
	e.Verdict = verdictOf(u)
	if present != nil {
		e.Bucket = present.bucket(u)
	}
	e.decided(u)
	if present == nil {
		return
	}
	e.Now, e.Unknown = present.now(u)
}

// presented are the credentials of a request, the governing one first.
func presented(u *audit.Use) []Credential {
	out := []Credential{}
	first := Credential{
		Scheme: u.Scheme, Governs: true, Name: u.Credential, Issuer: u.Issuer, Subject: u.Subject, TokenID: u.TokenID,
	}
	if word := u.Unverified; word != nil {
		first.Unverified = says(word)
	}
	switch stage := stageOf(u.Reason); {
	case u.Scheme == identity.SchemeNone.String():
	case stage == identity.StageRequest, stage == identity.StageGateway, stage == identity.StageAuthorisation, u.Reason == "",
		u.Reason == string(identity.LegacyRefused), u.Reason == string(identity.LegacyRetired):
		if u.Principal != "" {
			first.Status = identity.StatusVerified.String()
		}
		out = append(out, first)
	default:
		first.Status, first.Reason, first.Detail = identity.StatusRejected.String(), u.Reason, u.Detail
		if identity.Reason(u.Reason).Indeterminate() {
			first.Status = identity.StatusUnavailable.String()
		}
		out = append(out, first)
	}
	if c := u.Candidate; c != nil {
		second := Credential{
			Scheme: c.Scheme, Name: c.Credential, Status: c.Status, Reason: c.Reason, Detail: c.Detail,
			Issuer: c.Issuer, Subject: c.Subject, TokenID: c.TokenID,
		}
		if c.Unverified != nil {
			second.Unverified = says(c.Unverified)
			second.Detail = cmp.Or(second.Detail, c.Unverified.Detail)
		}
		out = append(out, second)
	}
	for i := range out {
		if info, known := identity.Reason(out[i].Reason).Info(); known {
			out[i].Means = info.Means
		}
	}
	return out
}

func stageOf(reason string) identity.Stage {
	info, _ := identity.Reason(reason).Info()
	return info.Stage
}

// says is what a token that nobody vouches for says of itself.
func says(word *audit.Unverified) string {
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"issuer", word.Issuer}, {"subject", word.Subject}, {"id", word.TokenID}, {"detail", word.Detail},
	} {
		if p.value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", p.name, p.value))
		}
	}
	return strings.Join(parts, ", ")
}

// verdictOf is the shadow's verdict, where the line tells it or leaves no doubt.
func verdictOf(u *audit.Use) *Verdict {
	v := Verdict{Verdict: u.Verdict, Reason: u.VerdictReason}
	legacy := u.Scheme != identity.SchemeOIDC.String() && u.Scheme != identity.SchemeNone.String()
	if v.Verdict == "" && legacy && u.Outcome == string(gateway.Allowed) && u.Candidate == nil {
		v.Verdict, v.Reason = string(shadow.NoToken), string(identity.TokenAbsent) // lines of before it was told
	}
	if v.Verdict == "" {
		return nil
	}
	v.Means = means[shadow.Verdict(v.Verdict)]
	if info, known := identity.Reason(v.Reason).Info(); known {
		v.Why, v.Owner = info.Means, info.Owner
		v.Do = readiness.Advice(info.Reason)
	}
	return &v
}

// decided adds sentences on what the reason alone does not say.
func (e *Explanation) decided(u *audit.Use) {
	say := func(format string, args ...any) { e.Why = append(e.Why, fmt.Sprintf(format, args...)) }
	reason := identity.Reason(u.Reason)
	if e.Kind == audit.KindCount {
		say("The line stands for %d requests of one kind within a minute; the trace is that of the first.", e.Count)
	}
	switch gateway.Outcome(u.Outcome) {
	case gateway.WouldRefuse:
		say("It was forwarded all the same: the gateway was in mode observe, which refuses nothing.")
	case gateway.Unavailable:
		say("It was answered 503: nobody could say whether the credential is good, and it was not called a bad one.")
	}
	if u.Grace {
		say("It was let through by grace: it told the end of a task that the same identity had started while it was good.")
	}
	if e.Other != "" {
		say("The worker or task of the request belongs to %s.", e.Other)
	}
	if !e.Verified {
		say("Nobody was verified, so what the request is about is the client's word.")
		return
	}
	if u.Percent == nil || u.Scheme == identity.SchemeOIDC.String() && u.Candidate == nil {
		return
	}
	e.enforced(u, reason, say)
}

// enforced says what the team's percentage had to do with it.
func (e *Explanation) enforced(u *audit.Use, reason identity.Reason, say func(string, ...any)) {
	percent := *u.Percent
	byPassword := u.Scheme != identity.SchemeOIDC.String() && u.Outcome == string(gateway.Allowed)
	switch {
	case reason == identity.LegacyRetired:
		say("Team %s has given up its static credentials for good.", u.Team)
	case e.Mode == gateway.Observe.String():
		say("Team %s was at %d%%, and mode observe enforced none of it.", u.Team, percent)
	case percent >= 100 && !byPassword:
		say("Team %s was at 100%%, where every run must use OIDC.", u.Team)
	case percent == 0 && byPassword:
		say("Team %s was at 0%%, where no run must use OIDC.", u.Team)
	case e.Bucket == nil && byPassword && percent > 0 && percent < 100:
		say("Team %s was at %d%%, and the run was not among those that must use OIDC, or began before they had to.", u.Team, percent)
	case e.Bucket == nil:
		say("Team %s was at %d%%.", u.Team, percent)
	case reason == identity.LegacyRefused && percent < e.Bucket.From:
		say("Team %s was at %d%%, which does not select %s (%d%% would): the run was held to what it began with, or a brownout selected it.", u.Team, percent, e.Bucket.Key, e.Bucket.From)
	case byPassword && percent >= e.Bucket.From:
		say("Team %s was at %d%%, which selects %s (from %d%% on): the run had begun before, and keeps what it began with until it ends.", u.Team, percent, e.Bucket.Key, e.Bucket.From)
	default:
		say("Team %s was at %d%%; %s is selected from %d%% on.", u.Team, percent, e.Bucket.Key, e.Bucket.From)
	}
}

func (e *Explanation) task(t *audit.Task) {
	e.Trace, e.Line.Configuration = t.TraceID, t.Configuration
	e.Outcome, e.Account, e.Team, e.Verified = t.Outcome, t.Principal, t.Team, t.Principal != ""
	e.Presented = []Credential{{
		Scheme: t.Scheme, Governs: true, Name: t.Credential, Status: identity.StatusVerified.String(), Issuer: t.Issuer, TokenID: t.TokenID,
	}}
	e.Call = Call{Action: string(identity.ActionExecute), Task: t.Task, Family: t.Family, Run: t.Worker, ClientRun: t.ClientRun}
	percent := t.Percent
	e.Percent = &percent
	e.Why = append(e.Why, "The task that this request started has ended.")
	if t.Grace {
		e.Why = append(e.Why, "Its end was accepted by grace: the identity had lapsed since it started.")
	}
}

func (e *Explanation) probe(p *audit.Probe) {
	e.Trace, e.Line.Configuration = p.TraceID, p.Configuration
	e.Outcome, e.Reason, e.Detail = p.Outcome, p.Reason, p.Detail
	e.Account, e.Team, e.Verified = p.Principal, p.Team, true
	e.Presented = []Credential{{
		Scheme: identity.SchemeOIDC.String(), Issuer: p.Issuer, Subject: p.Subject, TokenID: p.TokenID, Reason: p.Reason, Detail: p.Detail,
	}}
	if p.Unverified != nil {
		e.Presented[0].Unverified = says(p.Unverified)
	}
	e.Why = append(e.Why, fmt.Sprintf("The gateway itself obtained a token as the account would, by %s; no client sent this request.", p.Source))
	if p.Verdict != "" {
		e.Verdict = &Verdict{Verdict: p.Verdict}
	}
}
