package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"crossfade/gateway/identity"
)

// ReasonHeader names the reason of a refusal, for clients and proxies that do
// not read bodies.
const ReasonHeader = "Crossfade-Reason"

// AbortHeader with the value "off" asks for honest status codes instead of the
// abort body, for one request.
const AbortHeader = "Crossfade-Abort"

// Help stands in every refusal. All of it is optional.
type Help struct {
	// URL is the migration guide.
	URL string
	// Contact is whom to ask, as people write it: "#platform".
	Contact string
}

// Refusals renders what the gateway answers itself.
type Refusals struct {
	Help Help
	// Realm of the Basic challenge (RFC 7617 section 2).
	Realm string
	// Basic and Bearer tell which challenges are offered: the accepted ones.
	Basic, Bearer bool
	// Abort renders refusals of Luigi's API as bodies that an unmodified
	// worker stops at; see Call.Abortable.
	Abort bool
	// Metadata offers the protected resource metadata of RFC 9728 behind the
	// challenge.
	Metadata bool
}

// problem is the body of a refusal: problem details (RFC 9457) with the
// members of ours. Under the key "error" it is also the abort body.
type problem struct {
	Type    string          `json:"type,omitempty"`
	Title   string          `json:"title,omitempty"`
	Status  int             `json:"status,omitempty"`
	Reason  identity.Reason `json:"reason"`
	Team    identity.Team   `json:"team,omitempty"`
	Account string          `json:"account,omitempty"`
	Message string          `json:"message"`
	Do      string          `json:"do"`
	TraceID string          `json:"trace_id,omitempty"`
}

// keyError is the title of the section, in the migration guide as in the README,
// that explains what the log of a refused worker says: this, and nothing else.
// The fragment is the one that GitHub makes of the title.
const keyError, keyErrorFragment = "KeyError: 'response'", "#keyerror-response"

// Write answers a request that was not forwarded. r is what is answered: for a
// question of a proxy that, and not the request that it asks about.
func (f Refusals) Write(w http.ResponseWriter, r *http.Request, ev *Event) {
	reason := public(ev.Decision.Reason)
	status := statusOf(reason, ev.Decision.Outcome)
	p := problem{
		Reason:  reason,
		Message: f.message(reason, ev),
		Do:      f.advice(reason),
		TraceID: ev.TraceID,
	}
	if reason == identity.LegacyRefused || reason == identity.LegacyRetired {
		// The secret was right, so its owner may know whose it is.
		p.Team, p.Account = ev.Team(), ev.Principal.Name
	}

	h := w.Header()
	h.Set(ReasonHeader, string(reason))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")

	// What may be gone in a moment is worth the worker's retries.
	passing := status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
	// A ping holds a lock during its retries, which stalls the pipeline, and to be
	// told to slow down is no reason for it.
	slow := status == http.StatusTooManyRequests && ev.Call.Luigi.Ping
	// Of a body over the bound nobody has read what it asks for, or whether it is
	// a worker that asks.
	abort := f.Abort && ev.Call.Abortable && (!passing || slow) && status != http.StatusRequestEntityTooLarge &&
		!strings.EqualFold(r.Header.Get(AbortHeader), "off")
	if abort {
		h.Set("Content-Type", "application/json")
		if f.Help.URL != "" {
			h.Add("Link", "<"+f.Help.URL+keyErrorFragment+`>; rel="help"; title="`+keyError+`"`) // RFC 8288
		}
		f.send(w, r, http.StatusOK, map[string]problem{"error": p})
		return
	}
	told := ev.Asked.statusFor(status)
	p.Type, p.Title, p.Status = "about:blank", http.StatusText(told), told
	if f.Help.URL != "" {
		p.Type = f.Help.URL + "#" + string(reason)
	}
	switch status {
	case http.StatusUnauthorized:
		f.challenge(h, cmp.Or(ev.address, addressOf(r)), reason)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(retryAfter(ev.Legacy)))
	}
	h.Set("Content-Type", "application/problem+json")
	f.send(w, r, told, p)
}

// retryAfter is in how many seconds another try is worth it (RFC 9110 section
// 10.2.3), rounded up: one, when there was no time to verify a password.
func retryAfter(legacy *identity.Authentication) int {
	if legacy == nil || legacy.RetryAfter <= 0 {
		return 1
	}
	return int((legacy.RetryAfter + time.Second - 1) / time.Second)
}

func (f Refusals) send(w http.ResponseWriter, r *http.Request, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // plain strings and numbers always marshal
		text = []byte("{}")
	}
	text = append(text, '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text) // a client that went away needs no answer
	}
}

// public is the reason that the client may see. What went wrong with a static
// credential is nobody's business before the secret was right, and an expired
// one is told like a wrong one.
func public(r identity.Reason) identity.Reason {
	switch r {
	case identity.LegacyExpired, identity.LegacyRevoked:
		return identity.LegacyUnknown
	default:
		return r
	}
}

// statusOf maps a reason to its status: invalid_request 400, invalid_token
// 401, insufficient_scope 403 (RFC 6750 section 3.1), and those of our own.
func statusOf(r identity.Reason, o Outcome) int {
	switch r {
	case identity.RPCAmbiguous, identity.RPCUnknown, identity.MultipleCredentials, identity.TokenInQuery, identity.OriginalAmbiguous:
		return http.StatusBadRequest
	case identity.BodyOversize:
		return http.StatusRequestEntityTooLarge
	case identity.Throttled:
		return http.StatusTooManyRequests
	case identity.TaskUnknown, identity.WorkerMismatch, identity.CrossSite, identity.ProxyUntrusted:
		return http.StatusForbidden
	}
	info, known := r.Info()
	switch {
	case o == Unavailable, info.Indeterminate, !known:
		return http.StatusServiceUnavailable
	case info.Stage == identity.StageAuthorisation:
		return http.StatusForbidden
	default:
		return http.StatusUnauthorized
	}
}

// challenge sets WWW-Authenticate (RFC 9110 section 11.6.1). A run that must
// use OIDC is offered nothing else.
func (f Refusals) challenge(h http.Header, at address, reason identity.Reason) {
	onlyBearer := reason == identity.LegacyRefused || reason == identity.LegacyRetired
	if f.Bearer || onlyBearer {
		var b strings.Builder
		b.WriteString(`Bearer realm="` + f.Realm + `"`)
		if aboutToken(reason) { // RFC 6750 section 3: no error for a request without a token
			b.WriteString(`, error="invalid_token", error_description="` + string(reason) + `"`)
		}
		if f.Metadata {
			if base, ok := at.url(); ok {
				b.WriteString(`, resource_metadata="` + base + MetadataPath + `"`)
			}
		}
		h.Add("WWW-Authenticate", b.String())
	}
	if f.Basic && !onlyBearer {
		h.Add("WWW-Authenticate", `Basic realm="`+f.Realm+`", charset="UTF-8"`)
	}
}

// aboutToken reports whether a refusal with status 401 found fault with a
// token, and not with a static credential or with its absence.
func aboutToken(reason identity.Reason) bool {
	info, _ := reason.Info()
	switch info.Stage {
	case identity.StageExtract:
		return reason == identity.TokenOversize
	case identity.StageParse, identity.StageKey, identity.StageSignature,
		identity.StageTime, identity.StageBinding, identity.StageIdentity:
		return true
	default:
		return false
	}
}

func (f Refusals) message(reason identity.Reason, ev *Event) string {
	switch reason {
	case identity.LegacyRefused:
		return fmt.Sprintf("This run must use OIDC: %s is at %d%%. The %s of %s was correct.",
			ev.Team(), ev.Enforcement.Percent, secretWord(ev.Presented.Legacy), ev.Principal.Name)
	case identity.LegacyRetired:
		return fmt.Sprintf("%s has retired its static credentials. The %s of %s was correct.",
			ev.Team(), secretWord(ev.Presented.Legacy), ev.Principal.Name)
	case identity.OriginalAmbiguous:
		if ev.Fault != "" {
			return ev.Fault
		}
	}
	info, ok := reason.Info()
	if !ok {
		return "The request could not be judged."
	}
	return info.Means
}

// secretWord is what people call the secret of a scheme.
func secretWord(s identity.Scheme) string {
	switch s {
	case identity.SchemeAPIKey:
		return "key"
	case identity.SchemeStaticBearer:
		return "static token"
	default:
		return "password"
	}
}

// Advice is the one sentence that says what to do about a reason, as a refusal
// does, without the help of a configuration.
func Advice(reason identity.Reason) string { return Refusals{}.advice(reason) }

// advice is the one sentence that says what to do. It depends on the reason
// alone: what was expected goes to the audit line and not to a stranger.
func (f Refusals) advice(reason identity.Reason) string {
	do := advice[reason]
	if do == "" {
		info, _ := reason.Info()
		do = stageAdvice[info.Stage]
	}
	if do == "" {
		do = "Try again later"
	}
	switch {
	case f.Help.URL != "" && f.Help.Contact != "":
		return do + " (" + f.Help.URL + "), or ask " + f.Help.Contact + "."
	case f.Help.URL != "":
		return do + " (" + f.Help.URL + ")."
	case f.Help.Contact != "":
		return do + ", or ask " + f.Help.Contact + "."
	default:
		return do + "."
	}
}

var advice = map[identity.Reason]string{
	identity.TokenAbsent:         "Send an OIDC token as `Authorization: Bearer`",
	identity.SchemeUnsupported:   "Use Bearer with an OIDC token",
	identity.MultipleCredentials: "Send one credential; a token beside a legacy credential goes into " + CompanionHeader,
	identity.TokenInQuery:        "Send the token in the Authorization header and consider the one in the URL leaked",
	identity.Expired:             "Request a fresh token and refresh it before it expires",
	identity.ExpiredMidRun:       "Refresh the token while the run lasts",
	identity.NotYetValid:         "Check the clocks of the client and of the identity provider",
	identity.IATInFuture:         "Check the clocks of the client and of the identity provider",
	identity.AudMissing:          "Request the token with the audience of this gateway",
	identity.AudMismatch:         "Request the token with the audience of this gateway",
	identity.IssuerUnknown:       "Request the token from an issuer that this gateway knows",
	identity.IDTokenAsAccess:     "Send the access token and not the ID token",
	identity.SignatureInvalid:    "Request a new token; if this one came from the provider, its keys and the gateway's differ",
	identity.KidUnknown:          "Request a new token; this one was signed with a key that the provider does not publish",
	identity.PrincipalUnmapped:   "Ask the platform team to map this identity",
	identity.TeamUnmapped:        "Ask the platform team to map this identity to one team",
	identity.LegacyRefused:       "Start the worker through `crossfade agent`",
	identity.LegacyRetired:       "Start the worker through `crossfade agent`",
	identity.LegacyUnknown:       "Check the user name and the secret",
	identity.RPCAmbiguous:        "Send exactly one `data` field, as Luigi's own client does",
	identity.RPCUnknown:          "Use a method that Luigi's scheduler has",
	identity.CrossSite:           "Use a page of this address, or send the call as POST, as in `curl -d data={}`",
	identity.BodyOversize:        "Send a smaller body, or ask the platform team to raise upstream.max_body",
	identity.ProxyUntrusted:      "Send the request through the proxy; if this is the proxy, name its address in listen.trusted_proxies",
	identity.OriginalAmbiguous:   "Let the proxy say method, URI and client address of the original request once, and remove what clients say of them",
	identity.Throttled:           "Slow down and try again in a moment",
	identity.RoleMissing:         "Ask the platform team for a role",
	identity.ActionDenied:        "Ask the platform team for a role that allows this",
	identity.TaskFamilyDenied:    "Ask the platform team for a role that covers this task family",
}

var stageAdvice = map[identity.Stage]string{
	identity.StageExtract:       "Send one OIDC token as `Authorization: Bearer`",
	identity.StageParse:         "Send the access token of the identity provider, unchanged",
	identity.StageKey:           "Try again in a moment",
	identity.StageTime:          "Request a fresh token",
	identity.StageBinding:       "Request the token for this gateway; `crossfade token inspect` says what is wrong with it",
	identity.StageIdentity:      "Ask whoever runs the identity provider",
	identity.StageAuthorisation: "Ask the platform team for the right",
	identity.StageGateway:       "Try again in a moment",
}
