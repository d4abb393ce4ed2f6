package evidence

import (
	"context"
	"time"

	"crossfade/gateway/identity"
)

// MaxRefusals is how many kinds of refusals are told apart of a team and a day:
// so many with their pipeline, and as many again without. The rest is counted by
// reason alone.
const MaxRefusals = 1000

// Refusal is what requests have in common that were let pass and would not be
// under mode enforce, or if the roles of static credentials counted.
type Refusal struct {
	// Account is whom a credential named, in force or not; "" for nobody. Pipeline
	// is the run's, "" while it is not known or the account is not proven.
	Account, Pipeline string
	// Reason is why it would be refused; "" for a request that would not be.
	Reason identity.Reason
	// Roles tells that only the roles of a static credential deny it, which counts
	// under authorization: enforce alone.
	Roles bool
	// Already tells that the upstream itself refused it (401 or 403), so that
	// nothing would change for the client.
	Already bool
}

// wider returns the same with less told apart: first without its pipeline, then
// without its account.
func (r Refusal) wider(step int) Refusal {
	if step > 0 {
		r.Pipeline = ""
	}
	if step > 1 {
		r.Account = ""
	}
	return r
}

// Wider lists the kinds that a refusal may be counted as, the one that tells most
// first.
func (r Refusal) Wider() [3]Refusal { return [3]Refusal{r, r.wider(1), r.wider(2)} }

// Refused is how often, and when last, in milliseconds of UTC.
type Refused struct {
	Requests int64
	Last     time.Time
}

// add counts another one.
func (r Refused) add(o Refused) Refused {
	return Refused{Requests: r.Requests + o.Requests, Last: latest(r.Last, o.Last)}
}

// RefusalReader returns what would have been refused on a team's day. Nothing
// known is an empty map.
type RefusalReader interface {
	Refusals(ctx context.Context, team identity.Team, day Day) (map[Refusal]Refused, error)
}

// refuse notes that a request would be refused. What finds no room is counted as
// a wider kind, as the store does.
func (d *Daily) refuse(r Refusal, at time.Time) {
	if d.Refusals == nil {
		d.Refusals = make(map[Refusal]Refused)
	}
	for step, kind := range r.Wider() {
		known, ok := d.Refusals[kind]
		if ok || step == 2 || len(d.Refusals) < (step+1)*MaxRefusals {
			d.Refusals[kind] = known.add(Refused{1, at})
			return
		}
	}
}
