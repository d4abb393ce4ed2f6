package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/gateway/identity"
)

// Failure is a request of a run whose token would not have been let in, as Run says it
// of the worst one. The zero value is none.
type Failure struct {
	Reason  identity.Reason
	Detail  string
	TraceID string
	At      time.Time
}

// earlier is the one of two that came first.
func (f Failure) earlier(o Failure) Failure {
	if f.Reason == "" || o.Reason != "" && o.At.Before(f.At) {
		return o
	}
	return f
}

// failure is the first request of the run whose token would not have been let in.
func (r Run) failure() Failure {
	if r.Grade == WouldBreak {
		return Failure{Reason: r.Reason, Detail: r.Detail, TraceID: r.TraceID, At: r.Worst}
	}
	return r.Failure
}

// Signals are security signals of a run, each grade and reason once with the first
// request of it: "4 role_missing 1767225600000 4bf92f..." and so on, separated by
// semicolons, with reason and trace escaped as in a query. It is text, so that runs can be compared; reasons
// are of a closed list, so it has a bound.
type Signals string

// Signal is one of them.
type Signal struct {
	Grade   Grade
	Reason  identity.Reason
	At      time.Time
	TraceID string
}

// maxSignals is how many are kept of a run, more than there are pairs of grade and
// reason.
const maxSignals = 32

// text is the signal as it stands in Signals.
func (s Signal) text() string {
	return fmt.Sprintf("%d %s %d %s", s.Grade, url.QueryEscape(string(s.Reason)), s.At.UnixMilli(), url.QueryEscape(s.TraceID))
}

// All returns the signals. What is none is left out.
func (s Signals) All() []Signal {
	if s == "" {
		return nil
	}
	var all []Signal
	for part := range strings.SplitSeq(string(s), ";") {
		if signal, ok := parseSignal(part); ok && len(all) < maxSignals {
			all = append(all, signal)
		}
	}
	return all
}

func parseSignal(text string) (s Signal, ok bool) {
	fields := strings.Split(text, " ")
	if len(fields) != 4 {
		return Signal{}, false
	}
	grade, err := strconv.ParseUint(fields[0], 10, 8)
	at, wrong := strconv.ParseInt(fields[2], 10, 64)
	reason, odd := url.QueryUnescape(fields[1])
	trace, strange := url.QueryUnescape(fields[3])
	if errors.Join(err, wrong, odd, strange) != nil || !Grade(grade).Signal() || Grade(grade) > WouldOpen {
		return Signal{}, false
	}
	return Signal{Grade(grade), identity.Reason(reason), time.UnixMilli(at).UTC(), trace}, true
}

// SignalsOf returns the text of signals, of each grade and reason the first one.
func SignalsOf(all []Signal) Signals {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Signal) int {
		return cmp.Or(cmp.Compare(a.Grade, b.Grade), cmp.Compare(a.Reason, b.Reason), a.At.Compare(b.At), cmp.Compare(a.TraceID, b.TraceID))
	})
	all = slices.CompactFunc(all, func(a, b Signal) bool { return a.Grade == b.Grade && a.Reason == b.Reason })
	parts := make([]string, 0, len(all))
	for _, signal := range all[:min(len(all), maxSignals)] {
		parts = append(parts, signal.text())
	}
	return Signals(strings.Join(parts, ";"))
}

// Signals returns all security signals of the run, the worst one among them.
func (r Run) Signals() Signals {
	if !r.Grade.Signal() {
		return r.Also
	}
	return r.Also.with(Signals(Signal{r.Grade, r.Reason, r.Worst, r.TraceID}.text()))
}

// with are both.
func (s Signals) with(o Signals) Signals {
	switch {
	case s == "" || s == o:
		return o
	case o == "":
		return s
	}
	return SignalsOf(append(s.All(), o.All()...))
}

// without leaves one of them out.
func (s Signals) without(grade Grade, reason identity.Reason) Signals {
	if s == "" {
		return ""
	}
	return SignalsOf(slices.DeleteFunc(s.All(), func(signal Signal) bool { return signal.Grade == grade && signal.Reason == reason }))
}

// Without returns what the run is without the security signals that drop says: with the
// worst that is left at its head, or as the rest of its requests were. Of another signal
// than the worst nobody knows the Detail.
func (r Run) Without(drop func(Signal) bool) Run {
	if !r.Grade.Signal() {
		return r
	}
	left := slices.DeleteFunc(r.Signals().All(), drop)
	if len(left) > 0 {
		worst := slices.MaxFunc(left, func(a, b Signal) int {
			return cmp.Or(cmp.Compare(a.Grade, b.Grade), b.At.Compare(a.At), cmp.Compare(b.Reason, a.Reason))
		})
		if worst.Grade != r.Grade || worst.Reason != r.Reason {
			r.Grade, r.Reason, r.Detail, r.TraceID, r.Worst = worst.Grade, worst.Reason, "", worst.TraceID, worst.At
		}
		r.Also = SignalsOf(left).without(r.Grade, r.Reason)
		return r
	}
	failure := r.Failure
	r.Grade, r.Reason, r.Detail, r.TraceID, r.Worst = Clean, "", "", "", time.Time{}
	r.Failure, r.Also = Failure{}, ""
	switch {
	case r.Broke || failure.Reason != "": // what an older gateway recorded has the one alone
		r.Grade, r.Reason, r.Detail, r.TraceID, r.Worst = WouldBreak, failure.Reason, failure.Detail, failure.TraceID, failure.At
	case r.Tokenless:
		r.Grade, r.Reason = NoToken, identity.TokenAbsent
	case r.Unjudged:
		r.Grade = Indeterminate
	}
	return r
}
