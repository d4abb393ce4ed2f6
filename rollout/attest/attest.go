// Package attest writes down on what evidence a team's cutover stood at a time, for
// whoever audits it later. It is pure: a document is a value, and the same value
// is always the same text.
//
// The text ends with a SHA-256 digest of what stands above it. By it a change is
// seen that was made by mistake, or by somebody who did not make a new digest; who
// wants more keeps the digest somewhere else, as in the change's ticket.
package attest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
)

// kind names what a document is, and the version of its form.
const kind = "crossfade evidence 1"

// overridden is what the history's evidence begins with where an override has
// passed; see rollout.Next.
const overridden = "override: "

// Document is what is written down. Times are UTC. Make it with New.
type Document struct {
	Kind string        `json:"kind"`
	Team identity.Team `json:"team"`
	At   time.Time     `json:"at"`
	// Configuration is the hash of the one that all gateways serve by; "" if they
	// differ, or none is there.
	Configuration string           `json:"configuration,omitempty"`
	Gateways      []Gateway        `json:"gateways"`
	Report        readiness.Report `json:"report"`
	// Overrides are the raises of the history that passed checks which did not hold,
	// or that nobody asked the checks about, History the last changes, the latest
	// first.
	Overrides []Change `json:"overrides"`
	History   []Change `json:"history"`
}

// Gateway is one that was alive.
type Gateway struct {
	ID            string    `json:"id"`
	Version       string    `json:"version"`
	Configuration string    `json:"configuration"`
	Started       time.Time `json:"started"`
	Seen          time.Time `json:"seen"`
}

// Change is one of the history.
type Change struct {
	Revision int64        `json:"revision"`
	Kind     rollout.Kind `json:"kind"`
	At       time.Time    `json:"at"`
	From     int          `json:"from"`
	To       int          `json:"to"`
	Retired  bool         `json:"retired,omitempty"`
	Actor    string       `json:"actor"`
	// Verified tells that a token proves the actor.
	Verified bool   `json:"verified"`
	Source   string `json:"source"`
	Reason   string `json:"reason,omitempty"`
	// Evidence is what was found then.
	Evidence string `json:"evidence,omitempty"`
}

// New puts together a document: a report, the team's history, the latest change
// first, and the gateways as they were known at a time of the store.
func New(r readiness.Report, history []rollout.Entry, gateways []fleet.Replica, now time.Time) Document {
	r.At = r.At.UTC()
	d := Document{Kind: kind, Team: r.Team, At: r.At, Report: r, Gateways: []Gateway{}, Overrides: []Change{}, History: []Change{}}
	alive := fleet.Alive(gateways, now)
	slices.SortFunc(alive, func(a, b fleet.Replica) int { return strings.Compare(a.ID, b.ID) })
	for _, g := range alive {
		d.Gateways = append(d.Gateways, Gateway{g.ID, g.Version, g.Config, g.Started.UTC(), g.Seen.UTC()})
	}
	if len(alive) > 0 && fleet.Agree(alive) {
		d.Configuration = alive[0].Config
	}
	for _, e := range history {
		c := Change{
			Revision: e.Revision, Kind: e.Kind, At: e.At.UTC(), From: int(e.From), To: int(e.To), Retired: e.Retired,
			Actor: e.Actor, Verified: e.Verified, Source: e.Source, Reason: e.Reason, Evidence: e.Evidence,
		}
		d.History = append(d.History, c)
		if strings.HasPrefix(e.Evidence, overridden) || e.Kind == rollout.KindSet && e.To > e.From {
			d.Overrides = append(d.Overrides, c)
		}
	}
	return d
}

// sealed is the form of a document in JSON.
type sealed struct {
	Document json.RawMessage `json:"document"`
	SHA256   string          `json:"sha256"`
}

// JSON returns the document as JSON. The digest is that of the value of "document"
// without any white space.
func (d Document) JSON() ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("evidence of team %q: %w", string(d.Team), err)
	}
	return seal(text)
}

func seal(document []byte) ([]byte, error) {
	whole, err := json.Marshal(sealed{document, digest(document)})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, whole, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// seal of the Markdown form: its last line.
const lastLine = "SHA-256 of all lines above: "

// The errors of Verify.
var (
	// ErrAltered is of a text that its digest is not of.
	ErrAltered = errors.New("the text is not the one that was written")
	// ErrForm is of a text that is no document.
	ErrForm = errors.New("this is no evidence that Crossfade has written")
)

// Verify checks the digest of a document in either form, and returns it. Other
// ends of lines (CRLF), empty lines at the end and, in JSON, other white space are
// no alteration. Errors match ErrAltered or ErrForm.
func Verify(text []byte) (sum string, err error) {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		return verifyJSON(trimmed)
	}
	body := strings.TrimRight(string(text), "\n")
	above, sum, ok := cutLast(body, "\n"+lastLine)
	if !ok || !strings.HasPrefix(above, "# "+kind) {
		return "", ErrForm
	}
	if first, _, more := strings.Cut(sum, "\n"); more && isDigest(first) {
		return "", ErrAltered // somebody has added lines below
	}
	if !isDigest(sum) {
		return "", ErrForm
	}
	if digest([]byte(above+"\n")) != sum {
		return "", ErrAltered
	}
	return sum, nil
}

func verifyJSON(text []byte) (string, error) {
	var s sealed
	var d struct{ Kind string }
	if json.Unmarshal(text, &s) != nil || !isDigest(s.SHA256) || json.Unmarshal(s.Document, &d) != nil || d.Kind != kind {
		return "", ErrForm
	}
	var document, whole, want bytes.Buffer
	if json.Compact(&document, s.Document) != nil || json.Compact(&whole, text) != nil {
		return "", ErrForm
	}
	// The whole text, or what stands beside the document could say something else.
	again, err := seal(document.Bytes())
	if err != nil || json.Compact(&want, again) != nil {
		return "", ErrForm
	}
	if !bytes.Equal(whole.Bytes(), want.Bytes()) {
		return "", ErrAltered
	}
	return s.SHA256, nil
}

func isDigest(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == sha256.Size && strings.ToLower(text) == text
}

func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}

// Markdown returns the document for people, with the digest as its last line.
func (d Document) Markdown() []byte {
	var b strings.Builder
	r := d.Report
	fmt.Fprintf(&b, "# %s: team %s\n\n", kind, cell(string(d.Team)))
	fmt.Fprintf(&b, "Of %s. The team stands at %s%% (%s)", stamp(d.At), r.Percent, r.Phase)
	if r.Requested != nil && *r.Requested != r.Percent {
		fmt.Fprintf(&b, " and asks for %s%%", *r.Requested)
	}
	fmt.Fprintf(&b, ".\n\n**%s**: %s", strings.ToUpper(string(r.Answer)), cell(r.Why))
	if r.Owner != "" {
		fmt.Fprintf(&b, " (who acts: %s)", r.Owner)
	}
	b.WriteString("\n")
	fmt.Fprintf(&b, "\nLooked at: the %s before. %s could be judged, %s bad; the share of bad runs is under %s",
		readiness.About(r.Window), readiness.Counted(r.Runs, "run"), none(r.Bad), percent(r.Bound))
	if r.Census {
		b.WriteString(" (too few for the bound to decide: a census does)")
	}
	fmt.Fprintf(&b, ". Tokens came with %s of the runs.", readiness.Ratio(r.Coverage))
	if e := r.InEffect; e.Runs > 0 {
		fmt.Fprintf(&b, " Of the %s of %s the percentage selects %d.", readiness.Counted(e.Runs, "run"), e.Day, e.Selected)
	}
	b.WriteByte('\n')

	b.WriteString("\n## Configuration and gateways\n\n")
	switch {
	case d.Configuration != "":
		fmt.Fprintf(&b, "All gateways serve by the configuration %s.\n", cell(d.Configuration))
	case len(d.Gateways) == 0:
		b.WriteString("No gateway was alive.\n")
	default:
		b.WriteString("The gateways serve by configurations that differ.\n")
	}
	rows := [][]string{{"GATEWAY", "VERSION", "CONFIGURATION", "STARTED", "SEEN"}}
	for _, g := range d.Gateways {
		rows = append(rows, []string{g.ID, g.Version, g.Configuration, stamp(g.Started), stamp(g.Seen)})
	}
	list(&b, rows, "")

	b.WriteString("\n## Checks of a raise\n")
	list(&b, checks(r.Checks), "There are none.")
	if len(r.Retire) > 0 {
		b.WriteString("\n## Checks of retirement\n")
		list(&b, checks(r.Retire), "There are none.")
	}

	b.WriteString("\n## Runs by day\n")
	rows = [][]string{{"DAY (UTC)", "JUDGED", "BAD", "WITHOUT A TOKEN", "NOT TO BE JUDGED", "LEFT OUT"}}
	for _, day := range r.Days {
		rows = append(rows, numbers(string(day.Day), day.Runs, day.Bad, day.Tokenless, day.Unjudged, day.LeftOut))
	}
	list(&b, rows, "No runs were seen.")

	b.WriteString("\n## Accounts\n")
	rows = [][]string{{"ACCOUNT", "OWNER", "STATE", "LAST PASSWORD", "LAST TOKEN", "RUNS", "CLEAN"}}
	for _, a := range r.Accounts {
		rows = append(rows, append([]string{a.Account, cmp.Or(a.Owner, "-"), string(a.State)}, append([]string{stamp(a.LastLegacy), stamp(a.LastToken)}, numbers("", a.Runs, a.Clean)[1:]...)...))
	}
	list(&b, rows, "No accounts are known.")

	b.WriteString("\n## Failures\n")
	rows = [][]string{{"", "REASON", "VERDICT", "ACCOUNT", "PIPELINE", "RUNS", "FIRST", "LAST", "TRACE", "DETAIL", "CLOSED BY"}}
	for _, f := range r.Failures {
		state := "closed"
		if f.Open {
			state = "OPEN"
		}
		rows = append(rows, []string{
			state, string(f.Reason), f.Verdict, f.Account, cmp.Or(f.Pipeline, "-"), numbers("", f.Runs)[1], stamp(f.First), stamp(f.Last),
			cmp.Or(f.TraceID, "-"), cmp.Or(f.Detail, "-"), f.Closes,
		})
	}
	list(&b, rows, "None were seen.")

	b.WriteString("\n## Overrides\n")
	list(&b, changes(d.Overrides), "None stand in the history.")
	b.WriteString("\n## History\n")
	list(&b, changes(d.History), "The team was never changed.")
	if len(r.Warnings) > 0 {
		b.WriteString("\n## Warnings\n\n")
		for _, w := range r.Warnings {
			fmt.Fprintf(&b, "- %s\n", cell(w))
		}
	}
	b.WriteString("\n")
	return []byte(b.String() + lastLine + digest([]byte(b.String())) + "\n")
}

func checks(all []readiness.Check) [][]string {
	rows := [][]string{{"", "CHECK", "HAVE", "NEED", "WHY NOT", "WHO ACTS"}}
	for _, c := range all {
		mark := "ok"
		if !c.Pass {
			mark = "NO"
		}
		rows = append(rows, []string{mark, c.Name.Title(), c.Have, c.Need, cmp.Or(c.Why, "-"), cmp.Or(string(c.Owner), "-")})
	}
	return rows
}

func changes(all []Change) [][]string {
	rows := [][]string{{"REVISION", "AT", "CHANGE", "WHO", "BY", "WHY", "EVIDENCE THEN"}}
	for _, c := range all {
		who := cmp.Or(c.Actor, "-")
		if !c.Verified {
			who += " (unverified)"
		}
		what := fmt.Sprintf("%s: %d%% to %d%%", c.Kind, c.From, c.To)
		if c.Retired {
			what += ", retired"
		}
		rows = append(rows, []string{fmt.Sprint(c.Revision), stamp(c.At), what, who, cmp.Or(c.Source, "-"), cmp.Or(c.Reason, "-"), cmp.Or(c.Evidence, "-")})
	}
	return rows
}

// list writes rows, the first one the header, or a sentence if there are none.
func list(b *strings.Builder, rows [][]string, empty string) {
	if len(rows) == 1 {
		if empty != "" {
			fmt.Fprintf(b, "\n%s\n", empty)
		}
		return
	}
	b.WriteByte('\n')
	for i, row := range rows {
		b.WriteByte('|')
		for _, text := range row {
			fmt.Fprintf(b, " %s |", cell(text))
		}
		b.WriteByte('\n')
		if i == 0 {
			b.WriteString("|" + strings.Repeat(" --- |", len(row)) + "\n")
		}
	}
}
