package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"crossfade/gateway/luigi"
)

// Kind says what a line tells.
type Kind string

// The kinds of lines.
const (
	KindUse   Kind = "use"   // one use of a credential
	KindCount Kind = "count" // uses of one kind within a minute
	KindTask  Kind = "task"  // one executed task
	KindProbe Kind = "probe" // one probe, which no client made
	// KindChange is a change of a team's rollout that was made over the admin API.
	KindChange Kind = "change"

	KindOpen   Kind = "open"   // the gateway started
	KindClose  Kind = "close"  // it ended in good order
	KindRotate Kind = "rotate" // the first line of a further file
	KindTorn   Kind = "torn"   // the bytes before this line are what a crash left
	KindLost   Kind = "lost"   // records found no room
	KindBehind Kind = "behind" // the store knows a later line than the file
)

// Header begins every line.
type Header struct {
	Kind Kind `json:"kind"`
	// Time is when what the line tells happened, the last of it for a count.
	Time time.Time `json:"time"`
	// Replica names the chain, Seq counts its lines from 1, Prev is the SHA-256
	// of the line before in hex, zeros for the first.
	Replica string `json:"replica"`
	Seq     int64  `json:"seq"`
	Prev    string `json:"prev"`
}

// Use is the rest of a line of kind use or count. What does not apply is left
// out.
type Use struct {
	// N is how many uses a count stands for, from First to Header.Time.
	N     int64     `json:"n,omitempty"`
	First time.Time `json:"first,omitzero"`

	// Principal is empty when nobody was verified.
	Principal string `json:"principal,omitempty"`
	Team      string `json:"team,omitempty"`
	// Other is the principal that the worker, or the task, of the request belongs
	// to when that is not Principal.
	Other string `json:"other,omitempty"`
	// Scheme is the credential's that governs, or was presented when none did;
	// Credential names a static one.
	Scheme     string `json:"scheme"`
	Credential string `json:"credential,omitempty"`
	// Issuer, Subject and TokenID are a token's whose signature held.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	TokenID string `json:"token_id,omitempty"`

	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
	// Detail says for the operator what was found and what was expected.
	Detail string `json:"detail,omitempty"`
	Grace  bool   `json:"grace,omitempty"`
	Mode   string `json:"mode"`

	Action string `json:"action,omitempty"`
	RPC    string `json:"rpc,omitempty"`
	Family string `json:"family,omitempty"`
	Run    string `json:"run,omitempty"`
	// ClientRun is what the client calls its run: a name to search for, for which
	// nobody vouches.
	ClientRun string `json:"client_run,omitempty"`
	Method    string `json:"method,omitempty"`
	Path      string `json:"path,omitempty"`
	Status    int    `json:"status,omitempty"`
	Client    string `json:"client,omitempty"`
	// Percent is what the team stood at, where it was asked for, and Pipeline the
	// run's, where it was known.
	Percent  *int   `json:"percent,omitempty"`
	Pipeline string `json:"pipeline,omitempty"`
	// Verdict is the shadow's on the two credentials, and VerdictReason why.
	Verdict       string `json:"verdict,omitempty"`
	VerdictReason string `json:"verdict_reason,omitempty"`

	// Candidate is the other credential of the request, which did not govern.
	Candidate *Candidate `json:"candidate,omitempty"`
	// Unverified is the client's word, and nobody vouches for it.
	Unverified *Unverified `json:"unverified,omitempty"`

	TraceID       string `json:"trace_id,omitempty"`
	Configuration string `json:"configuration,omitempty"`
}

// Candidate is a credential that was only evaluated.
type Candidate struct {
	Scheme     string      `json:"scheme"`
	Status     string      `json:"status"`
	Reason     string      `json:"reason,omitempty"`
	Detail     string      `json:"detail,omitempty"`
	Credential string      `json:"credential,omitempty"`
	Issuer     string      `json:"issuer,omitempty"`
	Subject    string      `json:"subject,omitempty"`
	TokenID    string      `json:"token_id,omitempty"`
	Unverified *Unverified `json:"unverified,omitempty"`
}

// Unverified is what a token whose signature did not hold, or was not looked
// at, says about itself, and what a request of nobody says that it is.
type Unverified struct {
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	Detail  string `json:"detail,omitempty"`
	RPC     string `json:"rpc,omitempty"`
	Family  string `json:"family,omitempty"`
	Run     string `json:"run,omitempty"`
	// ClientRun is that of Use.
	ClientRun string `json:"client_run,omitempty"`
	Path      string `json:"path,omitempty"`
}

// Task is the rest of a line of kind task.
type Task struct {
	// Task is the id.
	Task   string `json:"task"`
	Family string `json:"family"`
	Module string `json:"module,omitempty"`
	// Parameters are all names, with values only where they are allowed.
	Parameters []luigi.Parameter `json:"parameters,omitempty"`
	Batch      []string          `json:"batch,omitempty"`
	Worker     string            `json:"worker"`
	// Started is left out when the start was not seen.
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended"`
	Outcome string    `json:"outcome"`
	Grace   bool      `json:"grace,omitempty"`

	Principal  string `json:"principal"`
	Team       string `json:"team"`
	Scheme     string `json:"scheme"`
	Credential string `json:"credential,omitempty"`
	Issuer     string `json:"issuer,omitempty"`
	TokenID    string `json:"token_id,omitempty"`
	Percent    int    `json:"percent"`
	// ClientRun is what the client called its run when the task started.
	ClientRun     string `json:"client_run,omitempty"`
	TraceID       string `json:"trace_id,omitempty"`
	Configuration string `json:"configuration,omitempty"`
}

// started is the rest of a line of kind open.
type started struct {
	Version string `json:"version,omitempty"`
	Host    string `json:"host"`
	// Resumed tells that the chain was there before.
	Resumed bool `json:"resumed"`
}

// rotated is the rest of a line of kind rotate.
type rotated struct {
	// Previous is the name of the file before, without its directory; empty if
	// somebody else moved it away.
	Previous string `json:"previous,omitempty"`
}

// torn is the rest of a line of kind torn: what stands between the last whole
// line and this one, without the newline that ends it.
type torn struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// lost is the rest of a line of kind lost.
type lost struct {
	Records int64 `json:"records"`
}

// behind is the rest of a line of kind behind: the head that the store knew at
// the start, and how far the file went.
type behind struct {
	Head  int64  `json:"head"`
	Hash  string `json:"hash"`
	Found int64  `json:"found"`
}

// The bounds of what clients and tokens can write into a line, in bytes.
const (
	maxHost       = 64
	maxMethod     = 32
	maxName       = 200
	maxPath       = 300
	maxDetail     = 500
	maxParameters = 100
	maxBatch      = 100
	// MaxLine is more than any line of the writer, and what readers take for a
	// line at most.
	MaxLine = 1 << 20
)

// clip bounds s. What was cut is copied, so that a short rest of something
// large does not hold all of it.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}

// clean replaces what does not print, so that nobody moves a terminal's cursor
// through the trail.
func clean(s string) string {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return strings.Map(func(r rune) rune {
				if unicode.IsPrint(r) {
					return r
				}
				return utf8.RuneError
			}, s)
		}
	}
	return s
}

// moment is a time as lines tell it.
func moment(at time.Time) time.Time { return at.UTC().Truncate(time.Millisecond) }

// chain is the end of the chain of one replica.
type chain struct {
	replica string
	seq     int64
	hash    [sha256.Size]byte
}

// next makes the line that follows, newline included. The chain is at it then.
func (c *chain) next(kind Kind, at time.Time, body any) ([]byte, error) {
	head := Header{Kind: kind, Time: moment(at), Replica: c.replica, Seq: c.seq + 1, Prev: hex.EncodeToString(c.hash[:])}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(head); err != nil {
		return nil, fmt.Errorf("lay out an audit line: %w", err)
	}
	b.Truncate(b.Len() - len("}\n"))
	middle := b.Len()
	if err := enc.Encode(body); err != nil {
		return nil, fmt.Errorf("lay out an audit line: %w", err)
	}
	line := b.Bytes()
	line[middle] = ',' // in place of the brace of the body
	if string(line[middle:]) == ",}\n" {
		line = append(line[:middle], "}\n"...)
	}
	c.hash = sha256.Sum256(line[:len(line)-1])
	c.seq++
	return line, nil
}
