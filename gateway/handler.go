package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/policy"
	"crossfade/gateway/shadow"
	"crossfade/gateway/throttle"
	"crossfade/rollout"
)

// Authenticator judges one credential. It never returns nil and is safe for
// concurrent use; what it returns is shared and must not be changed. The
// legacy keyring and the OIDC verifier both are one.
type Authenticator interface {
	Authenticate(ctx context.Context, c identity.Credential) *identity.Authentication
}

// TokenAuthenticator is an Authenticator that remembers its judgements.
type TokenAuthenticator interface {
	Authenticator
	// Cached returns a judgement that is there already, without any I/O.
	Cached(c identity.Credential) (*identity.Authentication, bool)
}

// Rollout says whether a run must use OIDC.
type Rollout interface {
	// Enforce judges a run; in mode observe (observe true) the run is noted as
	// one that is not enforced. It answers within its own short deadline.
	Enforce(ctx context.Context, run rollout.Run, observe bool) rollout.Enforcement
	// Percent is what a team stands at, 0 while that is not known.
	Percent(team identity.Team) rollout.Percent
}

// Auditor says whether what is served now can be recorded. It answers at once.
type Auditor interface {
	Ready() bool
}

// Options configures a Handler. Proxy, Legacy, Tokens, Rollout and Shadow are
// required.
type Options struct {
	Mode       Mode
	Extractor  Extractor
	Classifier Classifier
	Legacy     Authenticator
	Tokens     TokenAuthenticator
	Rollout    Rollout
	// Policy may be nil: then everyone may do everything.
	Policy *policy.Policy
	// RolesCount makes roles govern legacy requests in mode Enforce.
	RolesCount bool
	Shadow     *shadow.Runner
	// Tasks is for profile luigi.
	Tasks    Tasks
	Proxy    *Proxy
	Refusals Refusals
	// Metadata, if any, is served at MetadataPath in mode Enforce.
	Metadata *Metadata
	// Deprecated and Sunset are announced beside legacy successes in mode
	// Enforce; zero times are left out.
	Deprecated, Sunset time.Time
	// Throttle may be nil: then guesses at static credentials are not limited.
	Throttle *throttle.Limiter
	// Recorder may be nil.
	Recorder Recorder
	// ForwardAuth is the path of the forward-auth endpoint, compared exactly with the
	// escaped path; "" for none. There a trusted proxy asks about a request that it
	// goes on to forward itself, and gets the decision and the identity headers in
	// place of the upstream's answer. It is for profile http: a question has no body.
	ForwardAuth string
	// Auditor, if any, makes recording a condition: while it is not ready, mode
	// Enforce serves nothing that needs an identity, and mode Observe counts
	// what it would not have served.
	Auditor Auditor
}

// Handler is the straight pass of a request under one configuration. It is
// immutable; a reload builds another one.
type Handler struct {
	Options
	notice legacyNotice
	lists  chan struct{} // places for lists that are read to be filtered
}

// DefaultMaxBody bounds RPC bodies: Luigi's calls are below 2 KB, tasks with
// large parameters reach some hundred.
const DefaultMaxBody = 4 << 20

// DefaultBodyTimeout is how long the body of an RPC may take. Luigi's workers
// send theirs at once and give up on a call after 10 s; who takes longer holds
// memory here and nothing else, before anybody knows who it is.
const DefaultBodyTimeout = time.Minute

// New checks the options and returns the handler.
func New(o Options) (*Handler, error) {
	if o.Proxy == nil || o.Legacy == nil || o.Tokens == nil || o.Rollout == nil || o.Shadow == nil {
		return nil, errors.New("gateway: Proxy, Legacy, Tokens, Rollout and Shadow are required")
	}
	if o.Proxy.upstream == nil && o.ForwardAuth == "" {
		return nil, errors.New("gateway: without an upstream there must be a ForwardAuth")
	}
	if o.ForwardAuth != "" && o.Classifier.Profile == ProfileLuigi {
		return nil, errors.New("gateway: profile luigi reads bodies, and a question at ForwardAuth has none")
	}
	if o.Recorder == nil {
		o.Recorder = nobody{}
	}
	if o.Classifier.MaxBody <= 0 {
		o.Classifier.MaxBody = DefaultMaxBody
	}
	if o.Classifier.BodyTimeout <= 0 {
		o.Classifier.BodyTimeout = DefaultBodyTimeout
	}
	if o.Classifier.Profile == "" {
		o.Classifier.Profile = ProfileHTTP
	}
	o.Tasks.Grace = min(o.Tasks.Grace, luigi.WorkerTie)
	return &Handler{
		Options: o, notice: newLegacyNotice(o.Deprecated, o.Sunset, o.Refusals.Help.URL),
		lists: make(chan struct{}, maxLists),
	}, nil
}

// ServeHTTP is the straight pass. A request that a proxy only asks about takes it
// like one that came itself, up to its last step.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.Metadata != nil && h.Mode == Enforce && r.URL.Path == MetadataPath {
		h.Metadata.serve(w, h.Proxy.address(r))
		return
	}
	came, q := r, h.question(r)
	if q.about != nil {
		r = q.about
	}
	ctx, ev := h.begin(r)
	ev.Asked, ev.Fault = q.asked, q.fault
	r = r.WithContext(ctx)
	out := &response{ResponseWriter: w}
	defer h.end(ev, out)
	if q.refuse != "" {
		ev.Decision = Decision{Outcome: Refused, Reason: q.refuse}
		ev.Shadow = shadow.Result{Verdict: shadow.NotEvaluated, Evidence: shadow.EvidenceNone}
		h.Refusals.Write(out, came, &ev.Event)
		return
	}

	// extract, classify
	presented := h.Extractor.Extract(r.Header, r.URL.RawQuery)
	ev.Presented = PresentedSchemes{presented.Legacy.Scheme, presented.Token.Present(), presented.Companion}
	call, err := h.classify(w, r)
	if err != nil { // the client broke off, stalled, or lied about its length
		ev.Decision = Decision{Outcome: Refused, Reason: identity.RPCAmbiguous}
		ev.Shadow = shadow.Result{Verdict: shadow.NotEvaluated, Evidence: shadow.EvidenceNone}
		status := http.StatusBadRequest
		if errors.Is(err, os.ErrDeadlineExceeded) {
			status = http.StatusRequestTimeout
		}
		http.Error(out, "the body could not be read", status)
		return
	}
	ev.Call = q.problem(h.Proxy.judgeSite(r, call))

	// authenticate, look up, decide
	unaudited := h.Auditor != nil && !h.Auditor.Ready()
	if unaudited && h.Mode == Enforce {
		presented.Problem = identity.AuditUnavailable // nothing else is worth its cost
	}
	facts := h.learn(ctx, presented, ev)
	if unaudited {
		facts.Problem = identity.AuditUnavailable
	}
	ev.DecideStart = time.Now()
	ev.Decision = Decide(facts)
	ev.DecideTime = time.Since(ev.DecideStart)
	h.name(ev)
	h.accepted(ev)

	// shadow: at once where nothing has to be asked, else beside the request; of
	// get_work only the reply says which family it is about
	if ev.Call.Method == "get_work" {
		defer h.shadow(presented, ev)
	} else {
		h.shadow(presented, ev)
	}

	// refuse or forward
	if !ev.Decision.Forward() {
		h.Refusals.Write(out, came, &ev.Event)
		return
	}
	if h.Mode == Enforce && ev.Decision.Control == SideLegacy {
		out.before = func(header http.Header) { h.notice.set(header, ev.Legacy) }
	}
	if q.asked != "" {
		h.Proxy.Answer(out, &ev.Event)
		return
	}
	ev.onReply = h.reading(out, r, ev) //nolint:bodyclose // ReverseProxy closes what is read
	h.Proxy.Forward(out, r)
}

// begin opens the event of a request.
func (h *Handler) begin(r *http.Request) (context.Context, *pending) {
	ctx, traceID := h.Recorder.Begin(r)
	ev := &pending{ctx: ctx, recorder: h.Recorder}
	ev.parties.Store(1)
	// Field by field: the event is large, and a value would be built and copied.
	e := &ev.Event
	e.Start, e.TraceID, e.Mode, e.Profile = time.Now(), traceID, h.Mode, h.Classifier.Profile
	e.Method, e.Path, e.Host, e.Proto = r.Method, r.URL.EscapedPath(), r.Host, r.Proto
	e.UserAgent, e.Client, e.ClientRun = r.UserAgent(), h.Proxy.ClientAddr(r), clientRun(r.Header)
	e.address = h.Proxy.address(r)
	return withEvent(ctx, &ev.Event), ev
}

// end closes the event, also when the upstream died in the middle of its reply
// and net/http is being told by a panic.
func (h *Handler) end(ev *pending, out *response) {
	cause := recover()
	ev.Duration = time.Since(ev.Start)
	ev.Status, ev.Sent = out.status, out.sent
	if err, ok := cause.(error); ok && ev.UpstreamErr == nil {
		ev.UpstreamErr = err
	}
	ev.release()
	if cause != nil {
		panic(cause)
	}
}

// classify reads what the request wants, and a body only within its time.
func (h *Handler) classify(w http.ResponseWriter, r *http.Request) (Call, error) {
	if !h.Classifier.reads(r) {
		return h.Classifier.Classify(r)
	}
	control := http.NewResponseController(w)
	limited := control.SetReadDeadline(time.Now().Add(h.Classifier.BodyTimeout)) == nil
	call, err := h.Classifier.Classify(r)
	if limited && err == nil { // what else is read has all the time it needs
		_ = control.SetReadDeadline(time.Time{}) // fails only as the first one would have
	}
	return call, err
}

// learn authenticates and looks up: it collects the facts that decide.
func (h *Handler) learn(ctx context.Context, p Presented, ev *pending) Facts {
	f := Facts{
		Mode: h.Mode, RolesCount: h.RolesCount, Companion: p.Companion,
		Exempt: ev.Call.Exempt, Problem: p.Problem,
	}
	if f.Problem == "" {
		f.Problem = ev.Call.Problem
	}
	if f.Exempt || p.Problem != "" {
		return f
	}
	ev.AuthStart = time.Now()
	defer func() { ev.AuthTime = time.Since(ev.AuthStart) }()

	if p.Legacy.Present() {
		ev.Legacy = h.legacy(ctx, p.Legacy, &ev.Event)
	}
	if p.Token.Present() {
		ev.Token = h.token(ctx, p, ev.Legacy)
	}
	ev.Call = h.resolve(ctx, ev.Call, ev.Legacy, ev.Token)
	f.Legacy, f.Token = h.judged(ev.Legacy, ev), h.judged(ev.Token, ev)
	if ev.Legacy.OK() {
		h.lookUp(ctx, &f, ev)
	} else {
		h.run(ctx, ev, speaker(ev.Token))
	}
	if f.TokenGoverns() {
		if f.Token.Status == identity.StatusPending {
			ev.Token = h.Tokens.Authenticate(ctx, p.Token)
			ev.Call = h.resolve(ctx, ev.Call, ev.Token)
		}
		ev.Token = h.midRun(ctx, ev.Call.Run, ev.Token)
		f.Token = h.judged(ev.Token, ev)
	}
	h.own(ctx, &f, ev)
	f.Grace = h.grace(ctx, f, ev)
	return f
}

// legacy judges a static credential behind the throttle. In mode Observe, which
// refuses nothing, everything is judged, and the event tells what was over the
// limit.
func (h *Handler) legacy(ctx context.Context, c identity.Credential, ev *Event) *identity.Authentication {
	a, wait := h.Throttle.Authenticate(ctx, h.Legacy, ev.Client, c)
	if wait <= 0 {
		return a
	}
	ev.Throttled = true
	if h.Mode != Observe {
		return &identity.Authentication{
			Status: identity.StatusUnavailable, Reasons: []identity.Reason{identity.Throttled}, RetryAfter: wait,
		}
	}
	if a == nil {
		a = h.Legacy.Authenticate(ctx, c)
	}
	return a
}

// lookUp asks the rollout whether the run of a verified legacy credential must
// use OIDC.
func (h *Handler) lookUp(ctx context.Context, f *Facts, ev *pending) {
	ev.Principal = ev.Legacy.Principal
	if slices.Contains(ev.Legacy.MayBe, tokenName(ev.Token)) {
		ev.Principal = ev.Token.Principal // the companion says who shares the credential
	}
	h.run(ctx, ev, ev.Principal.Name)
	ev.Enforcement = h.Rollout.Enforce(ctx, rollout.Run{
		Team: ev.Principal.Team, Principal: ev.Principal.Name, ID: ev.Call.Run, Pipeline: ev.Call.Registers,
		Credential: ev.Legacy.CredentialID,
	}, h.Mode == Observe)
	f.Enforced, f.Retired = ev.Enforcement.Enforced, ev.Enforcement.Retired
	f.RolloutUnknown = !ev.Enforcement.Known
}

// token judges a token at once if it governs or if a shared credential needs
// it; a companion is looked up in what is known already and else left to the
// shadow.
func (h *Handler) token(ctx context.Context, p Presented, legacy *identity.Authentication) *identity.Authentication {
	if !p.Companion || legacy.OK() && len(legacy.MayBe) > 0 {
		return h.Tokens.Authenticate(ctx, p.Token)
	}
	if known, ok := h.Tokens.Cached(p.Token); ok {
		return known
	}
	return &unjudged
}

var unjudged = identity.Authentication{Status: identity.StatusPending}

func (h *Handler) judged(a *identity.Authentication, ev *pending) Judged {
	if a == nil {
		return Judged{}
	}
	j := Judged{Status: a.Status, Reason: a.Primary(), Denied: h.denied(a, &ev.Call, ev.Other)}
	if a.RetryAfter > 0 { // not judged, and no fault of ours: refused
		j.Status = identity.StatusRejected
	}
	return j
}

func tokenName(a *identity.Authentication) string {
	if !a.OK() {
		return ""
	}
	return a.Principal.Name
}

// name settles whose request it is: the principal of the credential that
// governs. A refused legacy credential whose secret was right keeps its
// principal, so that its owner can be told.
func (h *Handler) name(ev *pending) {
	switch {
	case ev.Decision.Control == SideToken && (ev.Token.OK() || ev.Decision.Grace):
		ev.Principal = ev.Token.Principal
	case ev.Decision.Control == SideToken && !ev.Legacy.OK():
		ev.Principal = identity.Principal{}
	case ev.Principal.Name == "" && ev.Legacy != nil:
		ev.Principal = ev.Legacy.Principal // expired or revoked: known, not verified
	}
}

// shadow finds the verdict on the two credentials. What is known already is
// compared here; a token that nobody has judged yet goes to the runner, and the
// event waits for it, not the client.
func (h *Handler) shadow(p Presented, ev *pending) {
	if ev.Call.Exempt || p.Problem != "" {
		ev.Shadow = shadow.Result{Verdict: shadow.NotEvaluated, Evidence: shadow.EvidenceNone}
		return
	}
	if ev.Token == nil || ev.Token.Status != identity.StatusPending {
		ev.Shadow, ev.Sample = h.compare(&ev.Event, &ev.Call, ev.Token)
		return
	}
	ev.parties.Add(1)
	queued := h.Shadow.Submit(func(ctx context.Context) {
		defer ev.release()
		start := time.Now()
		defer func() {
			if cause := recover(); cause != nil {
				token := identity.Reject(fmt.Sprintf("judging the token failed with a %T", cause), identity.PolicyError)
				ev.shadowed(token, shadow.Result{
					Verdict: shadow.Indeterminate, Reason: identity.PolicyError, Evidence: shadow.EvidenceClient,
				}, "", start)
				panic(cause) // the runner counts it and goes on
			}
		}()
		token := h.midRun(ctx, ev.Call.Run, h.candidate(ctx, p.Token))
		h.brought(ev, token)
		call := h.resolve(ctx, ev.Call, token)
		verdict, sample := h.compare(&ev.Event, &call, token)
		ev.shadowed(token, verdict, sample, start)
	})
	if !queued {
		ev.parties.Add(-1)
		ev.Shadow = shadow.Result{
			Verdict: shadow.NotEvaluated, Reason: identity.ShadowShed, Evidence: shadow.EvidenceClient,
		}
	}
}

// candidate judges a token for the shadow.
func (h *Handler) candidate(ctx context.Context, c identity.Credential) *identity.Authentication {
	token := h.Tokens.Authenticate(ctx, c)
	if ctx.Err() != nil && !token.OK() {
		return identity.Reject("the shadow's deadline passed", identity.ShadowTimeout)
	}
	return token
}

// compare returns the verdict on the two credentials and its sample.
func (h *Handler) compare(ev *Event, c *Call, token *identity.Authentication) (shadow.Result, string) {
	r := shadow.Compare(
		shadow.Side{Auth: ev.Legacy, Denied: h.denied(ev.Legacy, c, ev.Other)},
		shadow.Side{Auth: token, Denied: h.denied(token, c, ev.Other)},
		h.RolesCount && h.Mode == Enforce)
	return r, h.sample(ev, c, token, r)
}
