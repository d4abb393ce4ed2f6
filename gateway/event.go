package gateway

import (
	"context"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

// Event is all that was learned about one request. It is filled along the
// straight pass and handed to the Recorder once; metrics, span attributes and
// the access line come out of it and out of nothing else.
//
// It holds no secret: credentials are present only by scheme and id.
type Event struct {
	Start    time.Time
	Duration time.Duration
	// TraceID is lower-case hex (W3C Trace Context), "" without tracing.
	TraceID string

	Mode    Mode
	Profile Profile
	Method  string
	// Path is the escaped path without the query, which may hold secrets.
	Path      string
	Host      string
	Proto     string
	UserAgent string
	// ClientRun is what the client calls its run (RunHeader), "" for nothing. It
	// is the client's word: nothing is decided by it.
	ClientRun string
	// Client is the address of the client, believed through trusted proxies
	// only; the zero value when it is no IP address.
	Client netip.Addr
	// Asked tells that a proxy asked about the request, which it sends to the
	// upstream itself, and how; "" for a request that came itself.
	Asked Asked
	// Fault is a sentence about what is wrong with the proxy's question, "" for
	// nothing. It holds nothing of what a client wrote. With one, Method and Path are
	// those of the question.
	Fault string

	Call        Call
	Presented   PresentedSchemes
	Legacy      *identity.Authentication // nil when not presented
	Token       *identity.Authentication // nil when not presented; pending when left to the shadow
	Enforcement rollout.Enforcement
	Decision    Decision
	// Executions are those that this request was found to end, when the reply
	// was known: usually none or one.
	Executions []luigi.Execution
	// Principal is who governs; for a refusal it may be the verified principal
	// of the refused credential. Zero when nobody was verified.
	Principal identity.Principal
	// Other is the principal that the other side names where the two differ: for
	// worker_mismatch the owner of the worker, or of the task, that Principal
	// speaks for. "" if there is none.
	Other string
	// Throttled tells that the legacy credential came from somebody who had
	// failed too often. In mode Enforce it was not judged (a key or token was,
	// and was wrong); in mode Observe it was.
	Throttled bool
	// Shadow is the verdict on the two credentials.
	Shadow shadow.Result
	// Sample says of a verdict that is a mismatch, or of a token that is refused, what
	// its owner needs to repair it; see identity.Sample. "" otherwise. It may be shown
	// to whoever may see the team.
	Sample string
	// Shadowed tells that the verdict was found off the request path, from
	// ShadowStart for ShadowTime, and ShadowToken is the judgement found there.
	Shadowed    bool
	ShadowToken *identity.Authentication
	ShadowStart time.Time
	ShadowTime  time.Duration

	// AuthTime and DecideTime are how long authentication and decision took;
	// DecideStart is when the decision began.
	AuthStart, DecideStart time.Time
	AuthTime, DecideTime   time.Duration
	// UpstreamTime runs from handing the request to the transport to the
	// headers of the reply; zero when the request was not forwarded.
	UpstreamTime time.Duration
	// UpstreamErr is why the upstream gave no whole reply, nil if it did.
	UpstreamErr error
	// Status is what the client got; 0 when the connection ended before.
	Status int
	// Sent is the number of body bytes sent to the client.
	Sent int64

	// address is what the client reached; zero outside of a request.
	address address
	// onReply, if any, reads the upstream's reply before the client does.
	onReply func(*http.Response) error
}

// PresentedSchemes says what was presented, without any of it.
type PresentedSchemes struct {
	Legacy    identity.Scheme
	Token     bool
	Companion bool
}

// Team returns the team that the request counts for: Unassigned until a
// credential is verified.
func (e *Event) Team() identity.Team {
	if e.Principal.Team == "" {
		return identity.Unassigned
	}
	return e.Principal.Team
}

// Scheme returns the scheme that governs the request, or that was presented
// when nothing governed.
func (e *Event) Scheme() identity.Scheme {
	switch {
	case e.Decision.Control == SideLegacy:
		return e.Presented.Legacy
	case e.Decision.Control == SideToken:
		return identity.SchemeOIDC
	case e.Presented.Legacy != identity.SchemeNone:
		return e.Presented.Legacy
	case e.Presented.Token && !e.Presented.Companion:
		return identity.SchemeOIDC
	default:
		return identity.SchemeNone
	}
}

// Recorder is told of every request: when it begins, and once more when all is
// known. It must be safe for concurrent use and must not block.
type Recorder interface {
	// Begin returns the context for the request and its trace id.
	Begin(r *http.Request) (ctx context.Context, traceID string)
	// Observe is called exactly once for each Begin, with the context that
	// Begin returned (it may be cancelled by then) and an event that nobody
	// else touches any more. With a queued shadow it is called when the shadow
	// is done, by a goroutine of the shadow.
	Observe(ctx context.Context, ev *Event)
}

// nobody records nothing; it stands in where no Recorder is given.
type nobody struct{}

func (nobody) Begin(r *http.Request) (context.Context, string) { return r.Context(), "" }

func (nobody) Observe(context.Context, *Event) {}

// pending is an event that may still wait for its shadow. The last party to
// release it emits it, so that it is emitted once and nobody waits for anyone.
type pending struct {
	Event
	ctx      context.Context
	recorder Recorder
	parties  atomic.Int32
}

// shadowed notes the verdict of the runner. Only the shadow writes these
// fields, and nobody reads them before both parties have released the event;
// Token itself stays as the request saw it until then.
func (p *pending) shadowed(token *identity.Authentication, r shadow.Result, sample string, start time.Time) {
	p.Shadow, p.Sample, p.Shadowed = r, sample, true
	p.ShadowToken = token
	p.ShadowStart, p.ShadowTime = start, time.Since(start)
}

func (p *pending) release() {
	if p.parties.Add(-1) == 0 {
		p.recorder.Observe(p.ctx, &p.Event)
	}
}
