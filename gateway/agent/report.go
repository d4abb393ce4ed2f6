package agent

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// shownTrace is how much of a trace id people are shown: half of it finds it.
const shownTrace = 16

// refusal is what there is to say about one.
type refusal struct {
	problem
	sent sent
	// lack is why there was no token, nil if there was one.
	lack error
	// skew is by how much the gateway's clock is ahead.
	skew time.Duration
}

// text is the refusal in words: what happened, what the agent knows about it,
// where to read more.
func (r refusal) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "crossfade agent: REFUSED %s: %s\n", printable(r.Reason), sentence(printable(r.Message)))
	legacy := r.Reason == "legacy_refused" || r.Reason == "legacy_retired"
	switch {
	case r.lack != nil:
		fmt.Fprintf(&b, "  The agent had no token: %s\n", full(printable(r.lack.Error())))
	case r.sent.token && r.sent.legacy && legacy:
		b.WriteString("  The agent sent a token beside it: something between here and the gateway has taken it away.\n")
	case r.sent.token && r.sent.legacy:
		b.WriteString("  The agent sent a token beside the worker's own credential.\n")
	case r.sent.token:
		b.WriteString("  The agent sent a token.\n")
	}
	if r.Do != "" && !legacy {
		fmt.Fprintf(&b, "  Do: %s\n", full(printable(r.Do)))
	}
	if telling(r.skew) {
		fmt.Fprintf(&b, "  %s\n", skewText(r.skew))
	}
	if r.TraceID != "" {
		id := printable(r.TraceID)
		fmt.Fprintf(&b, "  More: crossfade explain %s\n", id[:min(len(id), shownTrace)])
	}
	return b.String()
}

// sentence is the first sentence of a message, to stand in the middle of a line:
// "This run must use OIDC: data-eng is at 50%. ..." is "this run must use OIDC
// (data-eng is at 50%)."
func sentence(message string) string {
	first, _, _ := strings.Cut(message, ". ")
	first = strings.TrimSuffix(strings.TrimSpace(first), ".")
	if what, why, ok := strings.Cut(first, ": "); ok {
		first = what + " (" + why + ")"
	}
	head, size := utf8.DecodeRuneInString(first)
	next, _ := utf8.DecodeRuneInString(first[size:])
	if unicode.IsUpper(head) && unicode.IsLower(next) {
		first = string(unicode.ToLower(head)) + first[size:]
	}
	return full(first)
}

// full ends a sentence.
func full(text string) string {
	text = strings.TrimSpace(text)
	if text == "" || strings.ContainsRune(".!?", rune(text[len(text)-1])) {
		return text
	}
	return text + "."
}

// printable takes out of a text from elsewhere what would move the cursor or
// begin a line of its own.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r), r == utf8.RuneError:
			return -1
		default:
			return r
		}
	}, text)
}

// Reporter says each thing once.
type Reporter struct {
	out   io.Writer
	again time.Duration

	mu   sync.Mutex
	said map[string]time.Time
}

// maxSaid bounds what a Reporter remembers; the keys are reasons, and a
// stranger's gateway may invent some.
const maxSaid = 100

// NewReporter returns one that writes to out. What was said is said again after
// the time given; 0 means never.
func NewReporter(out io.Writer, again time.Duration) *Reporter {
	return &Reporter{out: out, again: again, said: make(map[string]time.Time)}
}

// Say writes text, which ends in a newline, unless something was said under
// this key. It reports whether it did. It is safe for concurrent use.
func (r *Reporter) Say(key, text string) bool {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	at, known := r.said[key]
	if known && (r.again == 0 || now.Sub(at) < r.again) || !known && len(r.said) >= maxSaid {
		return false
	}
	r.said[key] = now
	_, _ = io.WriteString(r.out, text) // where nobody reads there is nobody to tell
	return true
}
