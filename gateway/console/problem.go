package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// The words of refusals that are no identity.Reason: they are about the API.
const (
	hostUnknown          = "host_unknown"
	routeUnknown         = "route_unknown"
	methodNotAllowed     = "method_not_allowed"
	teamUnknown          = "team_unknown"
	bodyInvalid          = "body_invalid"
	parameterInvalid     = "parameter_invalid"
	mediaType            = "media_type_unsupported"
	preconditionRequired = "precondition_required"
	preconditionInvalid  = "precondition_invalid"
	conflict             = "conflict"
	changeInvalid        = "change_invalid"
	teamRetired          = "team_retired"
	nothingToRollBack    = "nothing_to_roll_back"
	storeRegressed       = "store_regressed"
	retirementBlocked    = "retirement_blocked"
)

// problem is a refusal: problem details (RFC 9457), with the members that the
// gateway's own refusals have.
type problem struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Do      string `json:"do"`
	// Current is the team as it stands, where another state was expected.
	Current *Team `json:"current,omitempty"`
	// Obstacles are what stands in the way, where something does.
	Obstacles []rollout.Obstacle `json:"obstacles,omitempty"`

	challenge, retryAfter, allow string
}

func refuse(status int, reason, message, do string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Reason: reason, Message: message, Do: do}
}

func refuseFor(status int, reason identity.Reason, message, do string) *problem {
	return refuse(status, string(reason), message, do)
}

// unauthorised refuses for want of a good token (RFC 6750, section 3).
func unauthorised(reason identity.Reason, message string) *problem {
	p := refuseFor(http.StatusUnauthorized, reason, message,
		"Send an OIDC token as `Authorization: Bearer`; `crossfade token inspect` says what one lacks.")
	p.challenge = `Bearer realm="crossfade admin"`
	if reason != identity.TokenAbsent {
		p.challenge += fmt.Sprintf(`, error="invalid_token", error_description=%q`, string(reason))
	}
	return p
}

// storeProblem says what became of a reading or a change that the store did not
// take.
func storeProblem(err error, now func(rollout.State) Team) *problem {
	var stale *rollout.ConflictError
	var blocked *rollout.RetireError
	switch {
	case errors.As(err, &blocked):
		p := refuse(http.StatusConflict, retirementBlocked, err.Error(), "See to what is in the way; nothing overrides it, for nobody can take a retirement back.")
		p.Obstacles = blocked.Obstacles
		return p
	case errors.As(err, &stale):
		p := refuse(http.StatusPreconditionFailed, conflict, err.Error(), "Look at the current state and decide again.")
		current := now(stale.Current)
		p.Current = &current
		return p
	case errors.Is(err, rollout.ErrRetired):
		return refuse(http.StatusConflict, teamRetired, err.Error(), "Retirement is for good; ask the platform team.")
	case errors.Is(err, rollout.ErrNothingToRollBack):
		return refuse(http.StatusConflict, nothingToRollBack, err.Error(), "Set a percentage instead.")
	case errors.Is(err, rollout.ErrRegressed):
		p := refuse(http.StatusServiceUnavailable, storeRegressed, err.Error(), "Nothing can be changed before the store is restored: an operator looks at GET "+Prefix+"restore and sends POST.")
		p.retryAfter = "60"
		return p
	case errors.Is(err, rollout.ErrUnavailable):
		p := refuseFor(http.StatusServiceUnavailable, identity.StoreUnavailable, err.Error(),
			"Look at the team before you try again: what was sent may have been made.")
		p.retryAfter = "5"
		return p
	default:
		return refuse(http.StatusUnprocessableEntity, changeInvalid, err.Error(), "Correct the change and send it again.")
	}
}

// unfit reports whether a request was refused for where it comes from or goes to,
// whoever made it.
func (p *problem) unfit() bool {
	return p.Reason == hostUnknown || p.Reason == string(identity.CrossSite)
}

// awayProblem refuses a change of a team that could not be read, while others can.
func awayProblem(team identity.Team, err *rollout.PartialError) *problem {
	p := refuseFor(http.StatusServiceUnavailable, identity.StoreUnavailable,
		fmt.Sprintf("The node of the store that has %s is away, so nothing was changed: %v", team, err.Err),
		"Try again when it, or its replica, is back. Teams on other nodes can be changed meanwhile.")
	p.retryAfter = "5"
	return p
}

func (p *problem) write(w http.ResponseWriter) {
	p.headers(w)
	send(w, p.Status, "application/problem+json", p)
}

// headers sets those that a refusal has, however it is written.
func (p *problem) headers(w http.ResponseWriter) {
	h := w.Header()
	for name, value := range map[string]string{"WWW-Authenticate": p.challenge, "Retry-After": p.retryAfter, "Allow": p.allow} {
		if value != "" {
			h.Set(name, value)
		}
	}
	h.Set("Crossfade-Reason", p.Reason)
	if p.Current != nil {
		h.Set("ETag", etag(p.Current.Revision))
	}
}

// send writes a reply. Its writer may be gone, which nobody needs to hear of.
func send(w http.ResponseWriter, status int, contentType string, body any) {
	text, err := json.Marshal(body)
	if err != nil { // of our own types: cannot be
		http.Error(w, "the reply cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}
