package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/oidcauth"
	"crossfade/gateway/policy"
)

// sameReport is what check --same-rules found.
type sameReport struct {
	Same bool `json:"same"`
	// Files are the two that were compared, as they were named.
	Files       [2]string    `json:"files"`
	Differences []difference `json:"differences"`
	// Ignored is how many more there are that --ignore leaves out.
	Ignored int `json:"ignored"`
	// Notes say what was not compared, or how.
	Notes []string `json:"notes"`
}

// difference is a rule that is not the same in both: its values in the order of
// the files; nil where it is not set.
type difference struct {
	Key    string `json:"key"`
	Values [2]any `json:"values"`
}

// sameRules compares the rules of two configurations. Neither the environment nor
// flags have a say: they would make the two more alike than they are.
func (p *program) sameRules(files [2]string, ignore []string) (sameReport, error) {
	ignored, err := ignoring(ignore)
	if err != nil {
		return sameReport{}, err
	}
	var all [2]*config.Config
	var errs []error
	for i, file := range files {
		all[i], err = ruleBook(file)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return sameReport{}, err
	}
	found, notes := differences(all[0], all[1])
	r := sameReport{Files: files, Differences: []difference{}, Notes: append([]string{}, notes...)}
	for _, d := range found {
		if ignored(d.Key) {
			r.Ignored++
		} else {
			r.Differences = append(r.Differences, d)
		}
	}
	r.Same = len(r.Differences) == 0
	return r, nil
}

// ruleBook loads a configuration, and checks what a gateway would.
func ruleBook(file string) (*config.Config, error) {
	cfg, err := config.Load(config.Source{File: file, Partial: true})
	if err != nil {
		return nil, fmt.Errorf("%s does not load:\n%w", file, err)
	}
	providers := oidcauth.NewProviders(oidcauth.ProviderOptions{})
	defer providers.Close()
	if _, err := app.Build(cfg, providers, app.Hooks{}); err != nil {
		return nil, fmt.Errorf("%s does not load:\n%w", file, err)
	}
	return cfg, nil
}

// ignoring returns whether a key is below one of the patterns, in which a star
// stands for any text.
func ignoring(patterns []string) (func(key string) bool, error) {
	if len(patterns) == 0 {
		return func(string) bool { return false }, nil
	}
	all := make([]string, len(patterns))
	for i, pattern := range patterns {
		if strings.Trim(pattern, "*. ") == "" {
			return nil, usage("--ignore %q: name a key, like oidc.issuers or principals.*.oidc", pattern)
		}
		all[i] = strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*?")
	}
	re, err := regexp.Compile(`^(?:` + strings.Join(all, "|") + `)(?:$|[.\[])`)
	if err != nil {
		return nil, usage("--ignore %q: %w", strings.Join(patterns, ","), err)
	}
	return re.MatchString, nil
}

// word is a value that is said, not quoted.
type word string

// The words for what a whole entry is.
const (
	entry   word = "an entry"
	noEntry word = "no entry"
)

// differences compares two configurations by what they mean, in order of key. It
// is pure.
func differences(a, b *config.Config) (found []difference, notes []string) {
	c := comparison{}
	c.tables("", a.Rules(), b.Rules())
	pairs := pairIssuers(a.OIDC.Issuers, b.OIDC.Issuers)
	c.issuers(a.OIDC.Issuers, b.OIDC.Issuers, pairs)
	c.principals(a, b, pairs)
	c.roles(a.Roles, b.Roles)
	slices.SortFunc(c.found, func(x, y difference) int { return cmp.Compare(x.Key, y.Key) })
	for _, pair := range pairs {
		if pair[0] >= 0 && pair[1] >= 0 && a.OIDC.Issuers[pair[0]].Issuer != b.OIDC.Issuers[pair[1]].Issuer {
			notes = append(notes, fmt.Sprintf("compared as one issuer: %s and %s",
				a.OIDC.Issuers[pair[0]].Issuer, b.OIDC.Issuers[pair[1]].Issuer))
		}
	}
	return c.found, notes
}

type comparison struct{ found []difference }

func (c *comparison) add(key string, a, b any) {
	if !reflect.DeepEqual(a, b) {
		c.found = append(c.found, difference{key, [2]any{a, b}})
	}
}

// tables compares values by key; nil where one has none.
func (c *comparison) tables(prefix string, a, b map[string]any) {
	for _, key := range union(a, b) {
		c.add(prefix+key, unset(a[key]), unset(b[key]))
	}
}

// unset is nil for text and lists that are empty.
func unset(v any) any {
	switch x := v.(type) {
	case string:
		if x == "" {
			return nil
		}
	case []string:
		if len(x) == 0 {
			return nil
		}
	}
	return v
}

func union[V any](a, b map[string]V) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

// set is a list as it is compared: in order, each once.
func set(list []string) any {
	list = slices.Compact(slices.Sorted(slices.Values(list)))
	return unset(list)
}

// pairIssuers says which issuers are compared: those of one URL, then those of
// one provider in the order of the files, then what is left in that order. -1
// stands for none.
func pairIssuers(a, b []config.Issuer) (pairs [][2]int) {
	byA, byB := make([]int, len(a)), make([]int, len(b)) // 1 + its partner
	match := func(same func(x, y config.Issuer) bool) {
		for i := range a {
			for j := range b {
				if byA[i] == 0 && byB[j] == 0 && same(a[i], b[j]) {
					byA[i], byB[j] = j+1, i+1
				}
			}
		}
	}
	match(func(x, y config.Issuer) bool { return x.Issuer == y.Issuer })
	match(func(x, y config.Issuer) bool { return presetOf(x) == presetOf(y) })
	match(func(config.Issuer, config.Issuer) bool { return true })
	for i := range a {
		pairs = append(pairs, [2]int{i, byA[i] - 1})
	}
	for j := range b {
		if byB[j] == 0 {
			pairs = append(pairs, [2]int{-1, j})
		}
	}
	return pairs
}

func presetOf(i config.Issuer) string { return cmp.Or(i.Preset, oidcauth.GuessPreset(i.Issuer)) }

// issuerRules are those of an issuer, with what oidcauth puts for what is not set.
func issuerRules(i config.Issuer) map[string]any {
	rules := i.Rules()
	rules["preset"] = presetOf(i)
	for key, otherwise := range map[string]any{
		"algorithms": []string{"ES256", "RS256"}, "subject_claim": "sub", "max_lifetime": config.FormatDuration(oidcauth.DefaultMaxLifetime),
	} {
		if v := unset(rules[key]); v == nil || v == "0s" {
			rules[key] = otherwise
		}
	}
	return rules
}

// issuerKey names an issuer by its place: in the first file, or in the second if
// it is there alone.
func issuerKey(n int) string { return fmt.Sprintf("oidc.issuers[%d]", n) }

func (c *comparison) issuers(a, b []config.Issuer, pairs [][2]int) {
	for n, pair := range pairs {
		switch i, j := pair[0], pair[1]; {
		case j < 0:
			c.add(issuerKey(n), a[i].Issuer, nil)
		case i < 0:
			c.add(issuerKey(n), nil, b[j].Issuer)
		default:
			c.tables(issuerKey(n)+".", issuerRules(a[i]), issuerRules(b[j]))
		}
	}
}

func (c *comparison) principals(a, b *config.Config, pairs [][2]int) {
	inA, inB := make(map[string]config.Principal), make(map[string]config.Principal)
	for _, p := range a.Principals {
		inA[p.Name] = p
	}
	for _, p := range b.Principals {
		inB[p.Name] = p
	}
	several := len(a.OIDC.Issuers) > 1 || len(b.OIDC.Issuers) > 1
	for _, name := range union(inA, inB) {
		key := "principals." + name
		p, ok := inA[name]
		q, also := inB[name]
		switch {
		case !ok:
			c.add(key, noEntry, entry)
			continue
		case !also:
			c.add(key, entry, noEntry)
			continue
		}
		c.add(key+".team", teamOf(p), teamOf(q))
		c.add(key+".legacy", set(p.Legacy), set(q.Legacy))
		c.add(key+".roles", set(p.Roles), set(q.Roles))
		c.add(key+".shared", p.Shared, q.Shared)
		c.add(key+".may_be", set(p.MayBe), set(q.MayBe))
		c.add(key+".oidc", set(matches(p.OIDC, a.OIDC.Issuers, pairs, 0, several)), set(matches(q.OIDC, b.OIDC.Issuers, pairs, 1, several)))
	}
}

func teamOf(p config.Principal) any {
	if p.Shared {
		return unset(p.Team)
	}
	return cmp.Or(p.Team, "unassigned")
}

// matches are the identities of a principal, with issuers by their place if there
// are several: their URLs differ between environments. side is which of the two
// configurations it is.
func matches(list []config.TokenMatch, issuers []config.Issuer, pairs [][2]int, side int, several bool) []string {
	out := make([]string, len(list))
	for i, m := range list {
		var parts []string
		if several {
			at := m.Issuer
			for n, pair := range pairs {
				if j := pair[side]; j >= 0 && (issuers[j].Issuer == m.Issuer || m.Issuer == "" && len(issuers) == 1) {
					at = issuerKey(n)
				}
			}
			parts = append(parts, "issuer: "+at)
		}
		if m.Subject != "" {
			parts = append(parts, "subject: "+m.Subject)
		}
		for _, claim := range slices.Sorted(maps.Keys(m.Claims)) {
			parts = append(parts, claim+": "+m.Claims[claim])
		}
		out[i] = strings.Join(parts, ", ")
	}
	return out
}

// roles compares what each role allows, whatever way it is written; one that
// allows nothing is none. Without any roles everyone may do everything.
func (c *comparison) roles(a, b *config.Roles) {
	if (a == nil) != (b == nil) {
		said := map[bool]word{true: "missing, so everyone may do everything", false: "defined"}
		c.add("roles", said[a == nil], said[b == nil])
		return
	}
	if a == nil {
		return
	}
	for _, name := range union(a.Roles, b.Roles) {
		p, q := a.Roles[name], b.Roles[name]
		if grants(p) != grants(q) {
			said := map[bool]word{true: entry, false: noEntry}
			c.add("roles."+name, said[grants(p)], said[grants(q)])
			continue
		}
		for action, lists := range map[string][2][]string{
			"execute": {p.Execute, q.Execute}, "view": {p.View, q.View}, "admin": {p.Admin, q.Admin},
		} {
			c.add("roles."+name+"."+action, set(policy.Canonical(lists[0])), set(policy.Canonical(lists[1])))
		}
	}
	c.claims("claims.", a.Claims, b.Claims)
	c.claims("teams.", a.Teams, b.Teams)
}

func grants(r config.Role) bool { return len(r.Execute)+len(r.View)+len(r.Admin) > 0 }

// claims compares what the values of claims mean.
func (c *comparison) claims(prefix string, a, b map[string]map[string]string) {
	for _, claim := range union(a, b) {
		for _, value := range union(a[claim], b[claim]) {
			c.add(prefix+claim+"."+value, unset(a[claim][value]), unset(b[claim][value]))
		}
	}
}

// inFile says a value, and in which file it is.
func inFile(v any, file string) string {
	switch x := v.(type) {
	case nil:
		return "not set in " + file
	case word:
		return string(x) + " in " + file
	default:
		text, err := jsonText(x)
		if err != nil {
			text = fmt.Sprint(x)
		}
		return text + " in " + file
	}
}

// jsonText is a value as JSON on one line, with what pages have to escape as it
// is.
func jsonText(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// writeSame writes the report: a line for each difference as text, or a table of
// them.
func (p *program) writeSame(out *output, r sameReport) error {
	if out.format == "table" || out.format == "markdown" {
		for _, note := range r.Notes {
			if _, err := fmt.Fprintln(p.stderr, note); err != nil {
				return err
			}
		}
		if r.Ignored > 0 {
			if _, err := fmt.Fprintf(p.stderr, "%s ignored, as asked.\n", plural(r.Ignored, "difference")); err != nil {
				return err
			}
		}
	}
	if out.format == "table" {
		var b strings.Builder
		for _, d := range r.Differences {
			fmt.Fprintf(&b, "%s: %s, %s\n", d.Key, inFile(d.Values[0], r.Files[0]), inFile(d.Values[1], r.Files[1]))
		}
		if r.Same {
			fmt.Fprintf(&b, "SAME. %s and %s judge requests by the same rules.\n", r.Files[0], r.Files[1])
		}
		_, err := p.stdout.Write([]byte(b.String()))
		return err
	}
	t := table{{"KEY", r.Files[0], r.Files[1]}}
	for _, d := range r.Differences {
		row := []string{d.Key}
		for _, v := range d.Values {
			row = append(row, strings.TrimSuffix(inFile(v, ""), " in "))
		}
		t = append(t, row)
	}
	return out.write(p.stdout, r, t)
}
