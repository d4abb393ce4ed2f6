package onboard

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"crossfade/config"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/legacy"
)

// Seen says when an account was seen.
type Seen string

// The values of Seen, in the order of suggestions.
const (
	SeenNow    Seen = "seen"    // within the time that was looked at
	SeenBefore Seen = "before"  // not since
	SeenNever  Seen = "never"   // there is a credential
	SeenNotYet Seen = "unknown" // nobody could say: neither evidence nor trail was read
)

// Basis is what suggestions rest on.
type Basis struct {
	// Since is when what was looked at begins.
	Since time.Time
	// Evidence are the accounts by principal, nil when there was none to read;
	// Census likewise what the audit trail tells.
	Evidence map[string]*Account
	Census   *audit.Census
	// Credentials are all static credentials.
	Credentials []legacy.Info
	// Configured are the present entries, Issuers the configured issuers.
	Configured []config.Principal
	Issuers    []string
	// All adds the present entries to the suggestions.
	All bool
}

// Entry is one suggested entry of a principals file, with what it rests on.
type Entry struct {
	Name string `json:"name"`
	// Configured tells that it stands in the principals file already.
	Configured bool        `json:"configured,omitempty"`
	Team       string      `json:"team"`
	Legacy     []string    `json:"legacy"`
	OIDC       []TokenRule `json:"oidc,omitempty"`
	Roles      []string    `json:"roles,omitempty"`
	Shared     bool        `json:"shared,omitempty"`
	MayBe      []string    `json:"may_be,omitempty"`

	Seen Seen `json:"seen"`
	// Requests and Tasks are those of the audit trail; nil without one.
	Requests *int64 `json:"requests,omitempty"`
	Tasks    *int64 `json:"tasks,omitempty"`
	// Runs are those that the evidence has kept.
	Runs         int       `json:"runs"`
	LastPassword time.Time `json:"last_password,omitzero"`
	LastToken    time.Time `json:"last_token,omitzero"`
	Last         time.Time `json:"last,omitzero"`
	Families     []string  `json:"families,omitempty"`
	Hosts        []string  `json:"hosts,omitempty"`
	// Credentials are the names of the static ones, without any secret.
	Credentials []string `json:"credentials,omitempty"`
	// Subjects are whose tokens were sent along.
	Subjects []SubjectCount `json:"subjects,omitempty"`
	// Notes are what whoever completes the entry should know.
	Notes []string `json:"notes,omitempty"`
}

// TokenRule says which tokens mean the entry.
type TokenRule struct {
	Issuer  string            `json:"issuer,omitempty" yaml:"issuer,omitempty"`
	Subject string            `json:"subject,omitempty" yaml:"subject,omitempty"`
	Claims  map[string]string `json:"claims,omitempty" yaml:"claims,omitempty"`
}

// SubjectCount is how often tokens of a subject were sent.
type SubjectCount struct {
	audit.Subject
	Requests int64 `json:"requests"`
}

// Placeholder is the team of an entry that is not filled in yet. Whoever deploys
// it all the same changes nothing: the account stays at 0 percent.
const Placeholder = string(identity.Unassigned)

// Principals returns the entries that are missing: one for each legacy user that
// was seen or has a credential and that no entry names, the busiest first and
// those never seen last.
func Principals(b Basis) []Entry {
	s := newSuggester(b)
	for _, name := range slices.Sorted(maps.Keys(b.Evidence)) {
		if e := s.of(name); e != nil {
			e.evidence(b.Evidence[name])
		}
	}
	if b.Census != nil {
		for _, name := range slices.Sorted(maps.Keys(b.Census.Accounts)) {
			if e := s.of(name); e != nil {
				e.census(b.Census.Accounts[name])
			}
		}
	}
	var out []Entry
	for _, e := range s.entries {
		if e.Configured && !b.All {
			continue
		}
		e.complete(b)
		out = append(out, e.Entry)
	}
	slices.SortFunc(out, inOrder)
	s.name(out)
	s.tokens(out)
	return out
}

// draft is an entry while it is gathered.
type draft struct {
	Entry
	families, hosts map[string]bool
	subjects        map[audit.Subject]int64
	faults          map[identity.Reason]int64
}

// suggester is one pass of Principals.
type suggester struct {
	b       Basis
	entries map[string]*draft // of entries by "=" and their name, of others by their user
	byUser  map[string]string // legacy user -> entry
	owners  map[string]bool
}

func newSuggester(b Basis) *suggester {
	s := &suggester{b: b, entries: make(map[string]*draft), byUser: make(map[string]string), owners: make(map[string]bool)}
	for _, p := range b.Configured {
		e := s.draft("=" + p.Name)
		e.Entry = Entry{
			Name: p.Name, Configured: true, Team: p.Team, Legacy: p.Legacy, Roles: p.Roles, Shared: p.Shared, MayBe: p.MayBe,
		}
		for _, m := range p.OIDC {
			e.OIDC = append(e.OIDC, TokenRule(m))
		}
		for _, user := range p.Legacy {
			s.byUser[user] = p.Name
		}
	}
	for _, c := range b.Credentials {
		s.owners[c.Owner] = true
		e := s.user(c.Owner)
		e.Credentials = append(e.Credentials, c.ID)
	}
	return s
}

func (s *suggester) draft(key string) *draft {
	if s.entries[key] == nil {
		s.entries[key] = &draft{families: map[string]bool{}, hosts: map[string]bool{}, subjects: map[audit.Subject]int64{}, faults: map[identity.Reason]int64{}}
	}
	return s.entries[key]
}

// user is the draft of a legacy user: that of the entry that names it, or of its
// own.
func (s *suggester) user(name string) *draft {
	if entry, ok := s.byUser[name]; ok {
		return s.draft("=" + entry)
	}
	e := s.draft("-" + name)
	if e.Name == "" {
		e.Name, e.Team, e.Legacy = name, Placeholder, []string{name}
	}
	return e
}

// of is the draft that a principal's name means today; nil for none. What was an
// entry when it was seen may have none today.
func (s *suggester) of(principal string) *draft {
	user, unmapped := strings.CutPrefix(principal, "legacy:")
	switch {
	case unmapped && user != "":
		return s.user(user)
	case s.entries["="+principal] != nil:
		return s.entries["="+principal]
	case s.owners[principal]:
		return s.user(principal)
	default:
		return nil
	}
}

func (e *draft) evidence(a *Account) {
	e.Runs += a.Runs
	e.LastPassword, e.LastToken = latest(e.LastPassword, a.Legacy), latest(e.LastToken, a.Token)
	for family := range a.Families {
		e.families[family] = true
	}
}

func (e *draft) census(a *audit.Seen) {
	add := func(to **int64, n int64) {
		if *to == nil {
			*to = new(int64)
		}
		**to += n
	}
	add(&e.Requests, a.Requests)
	add(&e.Tasks, a.Tasks)
	e.Last = latest(e.Last, a.Last)
	for family := range a.Families {
		e.families[family] = true
	}
	for host := range a.Hosts {
		e.hosts[host] = true
	}
	for subject, n := range a.Subjects {
		if subject.Subject != "" {
			e.subjects[subject] += n
		}
	}
	for reason, n := range a.Faults {
		e.faults[reason] += n
	}
}

// complete turns what was gathered into lists.
func (e *draft) complete(b Basis) {
	e.Last = latest(e.Last, latest(e.LastPassword, e.LastToken))
	e.Families, e.Hosts = slices.Sorted(maps.Keys(e.families)), slices.Sorted(maps.Keys(e.hosts))
	for subject, n := range e.subjects {
		e.Subjects = append(e.Subjects, SubjectCount{subject, n})
	}
	slices.SortFunc(e.Subjects, func(a, b SubjectCount) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Subject.Subject, b.Subject.Subject))
	})
	for _, reason := range slices.Sorted(maps.Keys(e.faults)) {
		info, known := reason.Info()
		// That it is mapped nowhere is what an entry cures.
		if known && (info.Stage != identity.StageIdentity || e.Configured) {
			e.Notes = append(e.Notes, fmt.Sprintf("its tokens were not good in %s: %s: %s", plural(e.faults[reason], "request"), reason, info.Means))
		}
	}
	switch {
	case !e.Last.IsZero() && !e.Last.Before(b.Since):
		e.Seen = SeenNow
	case !e.Last.IsZero():
		e.Seen = SeenBefore
	case b.Evidence == nil && b.Census == nil:
		e.Seen = SeenNotYet
	default:
		e.Seen = SeenNever
	}
}

// inOrder is the order of suggestions: by traffic, those never seen last.
func inOrder(a, b Entry) int {
	rank := func(e Entry) int {
		return slices.Index([]Seen{SeenNow, SeenBefore, SeenNotYet, SeenNever}, e.Seen)
	}
	requests := func(e Entry) int64 {
		if e.Requests == nil {
			return 0
		}
		return *e.Requests
	}
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)), cmp.Compare(requests(b), requests(a)), cmp.Compare(b.Runs, a.Runs),
		b.Last.Compare(a.Last), cmp.Compare(a.Name, b.Name),
	)
}

// name gives each new entry a name that no other has, and that is none of the
// reserved ones.
func (s *suggester) name(entries []Entry) {
	taken := make(map[string]bool)
	for _, p := range s.b.Configured {
		taken[p.Name] = true
	}
	for i := range entries {
		e := &entries[i]
		if e.Configured {
			continue
		}
		user := e.Name
		for _, prefix := range []string{"legacy:", "oidc:"} {
			if rest, ok := strings.CutPrefix(e.Name, prefix); ok {
				e.Name = strings.TrimSuffix(prefix, ":") + "-" + rest
			}
		}
		free := e.Name
		for n := 2; taken[free]; n++ {
			free = fmt.Sprintf("%s-%d", e.Name, n)
		}
		if e.Name = free; free != user {
			e.Notes = append(e.Notes, fmt.Sprintf("the name %s is taken or reserved, so the entry of this user has another one", printable(user)))
		}
		taken[free] = true
	}
}

// tokens suggests which tokens mean the new entries, where that is beyond doubt,
// and notes what is known where it is not.
func (s *suggester) tokens(entries []Entry) {
	senders := make(map[audit.Subject][]string)
	for _, e := range entries {
		for _, subject := range e.Subjects {
			senders[subject.Subject] = append(senders[subject.Subject], e.Name)
		}
	}
	for i := range entries {
		e := &entries[i]
		if e.Configured || len(e.Subjects) == 0 {
			continue
		}
		if note := s.doubt(e, senders); note != "" {
			e.Notes = append(e.Notes, note)
			continue
		}
		rule := TokenRule{Subject: e.Subjects[0].Subject.Subject}
		if len(s.b.Issuers) > 1 {
			rule.Issuer = e.Subjects[0].Issuer
		}
		e.OIDC = []TokenRule{rule}
	}
}

// doubt says why the subject of an entry's tokens is not suggested, "" if nothing
// speaks against it.
func (s *suggester) doubt(e *Entry, senders map[audit.Subject][]string) string {
	first := e.Subjects[0]
	if len(e.Subjects) > 1 {
		var names []string
		for _, c := range e.Subjects {
			names = append(names, fmt.Sprintf("%s (%s)", c.Subject.Subject, plural(c.Requests, "request")))
		}
		return fmt.Sprintf("tokens of several subjects were sent with its password: %s; if people or services share it, write shared: true and may_be", some(names, 5))
	}
	subject := printable(first.Subject.Subject)
	if !slices.Contains(s.b.Issuers, first.Issuer) {
		return fmt.Sprintf("tokens of the subject %s were sent with its password, from the issuer %s, which is not configured", subject, printable(first.Issuer))
	}
	for _, p := range s.b.Configured {
		for _, m := range p.OIDC {
			if m.Subject == first.Subject.Subject && (m.Issuer == "" || m.Issuer == first.Issuer) {
				return fmt.Sprintf("its tokens are of the subject %s, which means %s already: if they are one account, remove this entry and add the user to legacy there", subject, printable(p.Name))
			}
		}
	}
	if others := senders[first.Subject]; len(others) > 1 {
		return fmt.Sprintf("tokens of one subject, %s, were sent with the passwords of %s: if they are one account, make them one entry with all of them under legacy", subject, some(others, 5))
	}
	return ""
}

// Shown bounds of the lists in comments.
const (
	maxFamilies = 8
	maxHosts    = 5
)

// WritePrincipals writes a principals file, with what each entry rests on as
// comments; head is one more, at its top. It loads as it is.
func WritePrincipals(w io.Writer, head string, entries []Entry) error {
	var b strings.Builder
	for line := range strings.Lines(head) {
		b.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
	if len(entries) == 0 {
		b.WriteString("\n{} # nobody is missing\n")
	}
	unseen := false
	for _, e := range entries {
		if e.Seen == SeenNever && !unseen {
			unseen = true
			b.WriteString("\n# Never seen. Are they needed?\n")
		}
		b.WriteString("\n")
		for _, line := range e.comments() {
			b.WriteString("# " + line + "\n")
		}
		if err := e.write(&b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// comments are what is known of an entry.
func (e Entry) comments() []string {
	var lines []string
	switch e.Seen {
	case SeenNever:
		lines = append(lines, "never seen")
	case SeenNotYet:
	default:
		var parts []string
		if e.Requests != nil {
			parts = append(parts, plural(*e.Requests, "request"))
		}
		if e.Runs > 0 {
			parts = append(parts, plural(int64(e.Runs), "run"))
		}
		if e.Tasks != nil && *e.Tasks > 0 {
			parts = append(parts, plural(*e.Tasks, "task"))
		}
		last := "last seen " + e.Last.UTC().Format("2006-01-02 15:04")
		if e.Seen == SeenBefore {
			last = "not seen in this time, " + last
		}
		parts = append(parts, last)
		lines = append(lines, strings.Join(parts, ", "))
	}
	for _, l := range []struct {
		what  string
		names []string
		most  int
	}{{"families", e.Families, maxFamilies}, {"hosts", e.Hosts, maxHosts}, {"credentials", e.Credentials, maxHosts}} {
		if len(l.names) > 0 {
			lines = append(lines, l.what+": "+some(l.names, l.most))
		}
	}
	return append(lines, e.Notes...)
}

// write writes the entry itself.
func (e Entry) write(b *strings.Builder) error {
	fields := &yaml.Node{Kind: yaml.MappingNode}
	put := func(key string, value any, comment string) error {
		n := &yaml.Node{}
		if err := n.Encode(value); err != nil {
			return fmt.Errorf("write the principals file: %s of %s: %w", key, e.Name, err)
		}
		if n.Kind != yaml.ScalarNode {
			n.Style = yaml.FlowStyle
		}
		n.LineComment = comment
		fields.Content = append(fields.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, n)
		return nil
	}
	var errs []error
	switch {
	case e.Team != "" && !e.Configured:
		errs = append(errs, put("team", e.Team, "fill in the team that runs it"))
	case e.Team != "":
		errs = append(errs, put("team", e.Team, ""))
	}
	if len(e.Legacy) != 1 || e.Legacy[0] != e.Name {
		errs = append(errs, put("legacy", append([]string{}, e.Legacy...), ""))
	}
	switch {
	case len(e.OIDC) == 1 && !e.Configured:
		errs = append(errs, put("oidc", e.OIDC[0], "the tokens that were sent with its password"))
	case len(e.OIDC) > 0:
		errs = append(errs, put("oidc", e.OIDC, ""))
	}
	if len(e.Roles) > 0 {
		errs = append(errs, put("roles", e.Roles, ""))
	}
	if e.Shared {
		errs = append(errs, put("shared", true, ""), put("may_be", e.MayBe, ""))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	name := &yaml.Node{}
	if err := name.Encode(e.Name); err != nil {
		return fmt.Errorf("write the principals file: %w", err)
	}
	if len(fields.Content) == 0 { // an entry of its name alone
		fields.Style = yaml.FlowStyle
	}
	enc := yaml.NewEncoder(b)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{name, fields}}); err != nil {
		return fmt.Errorf("write the principals file: %w", err)
	}
	return enc.Close()
}
