package audit

import (
	"net/netip"
	"strings"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/shadow"
)

// record is what is kept of one request until its line is written. It is a
// value without pointers into the request, bounded, and comparable: what is
// counted together is equal in its key.
type record struct {
	at time.Time
	// minute is that of at, since 1970.
	minute int64
	// counted tells a call of high frequency.
	counted bool

	principal string
	other     string // whose the worker or the task is, where it is another's
	team      identity.Team
	governing side
	candidate side

	outcome gateway.Outcome
	reason  identity.Reason
	grace   bool
	mode    gateway.Mode

	action identity.Action
	rpc    string
	family string
	run    string
	// clientRun is the client's word, also of somebody who was verified.
	clientRun string
	method    string
	path      string
	status    int
	client    netip.Addr
	// percent is that of the team, -1 where nobody asked.
	percent int16
	// pipeline is the run's, where it is known.
	pipeline string
	// verdict is the shadow's, why its primary reason.
	verdict shadow.Verdict
	why     identity.Reason

	trace, configuration string
}

// side is one credential of a request.
type side struct {
	scheme identity.Scheme
	status identity.Status
	reason identity.Reason
	// vouched tells that the claims are more than the client's word.
	vouched                            bool
	credential, issuer, subject, token string
	detail                             string
}

func sideOf(scheme identity.Scheme, a *identity.Authentication) side {
	s := side{scheme: scheme}
	if a == nil {
		return s
	}
	s.status, s.reason = a.Status, a.Primary()
	s.credential, s.detail = clip(a.CredentialID, maxName), clip(a.Detail, maxDetail)
	if t := a.Token; t != nil {
		s.vouched = t.Verified
		s.issuer, s.subject = clip(t.Issuer, maxName), clip(t.Subject, maxName)
		if s.token = clip(t.ID, maxName); s.token == "" {
			s.token = t.Digest
		}
	}
	return s
}

// recordOf takes from an event what its line will tell.
func recordOf(ev *gateway.Event, configuration string) record {
	at := ev.Start.Add(ev.Duration)
	r := record{
		at: at, minute: at.Unix() / 60, counted: frequent(ev),
		principal: clip(ev.Principal.Name, maxName), other: clip(ev.Other, maxName), team: ev.Principal.Team,
		outcome: ev.Decision.Outcome, reason: ev.Decision.Reason, grace: ev.Decision.Grace, mode: ev.Mode,
		action: ev.Call.Action, rpc: clip(ev.Call.Method, maxName), family: clip(ev.Call.Family, maxName),
		run: clip(ev.Call.Run, maxName), clientRun: clip(ev.ClientRun, maxName), method: clip(ev.Method, maxMethod), status: ev.Status, client: ev.Client.WithZone(""),
		verdict: ev.Shadow.Verdict, why: ev.Shadow.Reason,
		percent: -1, trace: clip(ev.TraceID, maxName), configuration: configuration,
	}
	if !ev.Call.RPC {
		// A parameter of a path segment (RFC 3986 section 3.3) may be a session.
		path, _, _ := strings.Cut(ev.Path, ";")
		r.path = clip(path, maxPath)
	}
	if ev.Enforcement.Known {
		r.percent = int16(ev.Enforcement.Percent)
	}
	r.pipeline = clip(ev.Enforcement.Pipeline, maxName)

	judged := ev.Token
	if ev.Shadowed {
		judged = ev.ShadowToken
	}
	legacy, token := sideOf(ev.Presented.Legacy, ev.Legacy), side{}
	if ev.Presented.Token {
		token = sideOf(identity.SchemeOIDC, judged)
	}
	switch ev.Scheme() {
	case identity.SchemeOIDC:
		r.governing, r.candidate = token, legacy
	case identity.SchemeNone:
		r.candidate = token // a companion alone
	default:
		r.governing, r.candidate = legacy, token
	}
	if r.principal == "" { // a token that is good, of a request that is not
		switch {
		case r.governing.scheme == identity.SchemeOIDC && judged.OK():
			r.principal, r.team = clip(judged.Principal.Name, maxName), judged.Principal.Team
		case r.governing.scheme.Legacy() && ev.Legacy.OK():
			r.principal, r.team = clip(ev.Legacy.Principal.Name, maxName), ev.Legacy.Principal.Team
		}
	}
	return r
}

// frequent reports whether a request is one of many that need no line each:
// what workers send every second, and whatever only looks.
func frequent(ev *gateway.Event) bool {
	if ev.Call.Action == identity.ActionView {
		return true
	}
	if !ev.Call.RPC {
		return false
	}
	switch ev.Call.Method {
	case "ping", "get_work", "count_pending", "set_task_status_message", "set_task_progress_percentage":
		return true
	default:
		return false
	}
}

// key is what requests that are counted together have in common. Of requests
// of nobody it holds nothing that a stranger can make up but, where told is
// set, the address.
func (r record) key(told bool) record {
	k := r
	k.at, k.trace, k.family, k.path, k.pipeline, k.status, k.percent, k.configuration = time.Time{}, "", "", "", "", 0, 0, ""
	k.counted, k.governing.detail, k.candidate.detail = true, "", ""
	if r.principal != "" {
		k.client = netip.Addr{}
		return k
	}
	k.run, k.clientRun, k.rpc, k.method = "", "", "", ""
	k.governing.strange()
	k.candidate.strange()
	if !told {
		k.client = netip.Addr{}
	}
	return k
}

// strange forgets what a token says about itself.
func (s *side) strange() { s.vouched, s.issuer, s.subject, s.token = false, "", "", "" }

// use lays the record out.
func (r record) use() Use {
	u := Use{
		Principal: clean(r.principal), Other: clean(r.other), Team: clean(string(r.team)),
		Scheme: r.governing.scheme.String(), Credential: clean(r.governing.credential),
		Outcome: string(r.outcome), Reason: string(r.reason), Grace: r.grace, Mode: r.mode.String(),
		Action: string(r.action), Method: clean(r.method), Status: r.status,
		Verdict: string(r.verdict), VerdictReason: string(r.why),
		TraceID: clean(r.trace), Configuration: clean(r.configuration),
	}
	if r.client.IsValid() {
		u.Client = r.client.String()
	}
	if r.percent >= 0 {
		percent := int(r.percent)
		u.Percent = &percent
	}
	var word Unverified
	if r.principal != "" {
		u.RPC, u.Family, u.Run, u.Path = clean(r.rpc), clean(r.family), clean(r.run), clean(r.path)
		u.ClientRun, u.Pipeline = clean(r.clientRun), clean(r.pipeline)
	} else {
		word.RPC, word.Family, word.Run, word.Path = clean(r.rpc), clean(r.family), clean(r.run), clean(r.path)
		word.ClientRun = clean(r.clientRun)
	}
	u.Issuer, u.Subject, u.TokenID, u.Detail = r.governing.claims(&word)
	if word != (Unverified{}) {
		u.Unverified = &word
	}
	if c := r.candidate; c.scheme != identity.SchemeNone {
		var word Unverified
		u.Candidate = &Candidate{
			Scheme: c.scheme.String(), Status: c.status.String(), Reason: string(c.reason), Credential: clean(c.credential),
		}
		u.Candidate.Issuer, u.Candidate.Subject, u.Candidate.TokenID, u.Candidate.Detail = c.claims(&word)
		if word != (Unverified{}) {
			u.Candidate.Unverified = &word
		}
	}
	return u
}

// claims returns what somebody vouches for, and puts the rest into word. The
// sentence about a token may quote its claims.
func (s side) claims(word *Unverified) (issuer, subject, token, detail string) {
	issuer, subject, token, detail = clean(s.issuer), clean(s.subject), clean(s.token), clean(s.detail)
	if s.scheme != identity.SchemeOIDC || s.vouched {
		return issuer, subject, token, detail
	}
	word.Issuer, word.Subject, word.TokenID, word.Detail = issuer, subject, token, detail
	return "", "", "", ""
}

// taskOf lays an execution out, bounded, and without the values of parameters
// that are not allowed.
func taskOf(e luigi.Execution, values map[string]bool) Task {
	name := func(s string) string { return clean(clip(s, maxName)) }
	t := Task{
		Task: name(e.Task), Family: name(e.Family), Module: name(e.Module), Worker: name(e.Worker),
		Ended: moment(e.Ended), Outcome: name(string(e.Outcome)), Grace: e.Grace,
		Principal: name(e.By.Principal), Team: name(string(e.By.Team)), Scheme: name(e.By.Scheme),
		Credential: name(e.By.Credential), Issuer: name(e.By.Issuer), TokenID: name(e.By.TokenID),
		Percent: e.By.Percent, ClientRun: name(e.By.ClientRun), TraceID: name(e.By.TraceID), Configuration: name(e.By.Configuration),
	}
	if !e.At.IsZero() {
		t.Started = moment(e.At)
	}
	for _, p := range e.Parameters[:min(len(e.Parameters), maxParameters)] {
		told := luigi.Parameter{Name: name(p.Name)}
		if p.Value != nil && values[p.Name] {
			value := name(*p.Value)
			told.Value = &value
		}
		t.Parameters = append(t.Parameters, told)
	}
	for _, id := range e.Batch[:min(len(e.Batch), maxBatch)] {
		t.Batch = append(t.Batch, name(id))
	}
	return t
}
