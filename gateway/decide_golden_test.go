package gateway_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// dimension is one of the facts: its name, its values, and how a value gets
// into the facts.
type dimension struct {
	name   string
	values []string
	set    func(f *gateway.Facts, value string)
}

// Reasons that tell the two credentials apart in the golden table. What they
// mean does not matter to the decision.
const (
	legacyFails  = identity.LegacyUnknown
	legacyDenied = identity.TaskFamilyDenied
	tokenFails   = identity.AudMismatch
	tokenAway    = identity.JWKSUnavailable
	tokenDenied  = identity.ActionDenied
	badRequest   = identity.RPCAmbiguous
)

// dimensions spans the cross product of all facts.
func dimensions() []dimension {
	yesNo := []string{"no", "yes"}
	return []dimension{
		{"exempt", yesNo, func(f *gateway.Facts, v string) { f.Exempt = v == "yes" }},
		{"problem", []string{"no", "yes", "unaudited"}, func(f *gateway.Facts, v string) {
			switch v {
			case "yes":
				f.Problem = badRequest
			case "unaudited":
				f.Problem = identity.AuditUnavailable
			}
		}},
		{"mode", []string{"observe", "enforce"}, func(f *gateway.Facts, v string) {
			if v == "enforce" {
				f.Mode = gateway.Enforce
			}
		}},
		{"companion", yesNo, func(f *gateway.Facts, v string) { f.Companion = v == "yes" }},
		{"legacy", statuses(), func(f *gateway.Facts, v string) {
			f.Legacy = judgement(v, legacyFails, identity.Throttled, legacyDenied)
		}},
		{"token", statuses(), func(f *gateway.Facts, v string) {
			f.Token = judgement(v, tokenFails, tokenAway, tokenDenied)
		}},
		{"rollout", []string{"known", "unknown"}, func(f *gateway.Facts, v string) { f.RolloutUnknown = v == "unknown" }},
		{"retired", yesNo, func(f *gateway.Facts, v string) { f.Retired = v == "yes" }},
		{"enforced", yesNo, func(f *gateway.Facts, v string) { f.Enforced = v == "yes" }},
		{"roles_count", yesNo, func(f *gateway.Facts, v string) { f.RolesCount = v == "yes" }},
		{"grace", yesNo, func(f *gateway.Facts, v string) { f.Grace = v == "yes" }},
	}
}

// statuses are the judgements of one credential. "denied" is verified, but the
// roles deny; "undecided" is verified, and nobody can say what the roles say;
// "expired" is rejected for that alone; "unsaid" is rejected by an authenticator that gave no reason.
func statuses() []string {
	return []string{"absent", "verified", "denied", "undecided", "expired", "rejected", "unsaid", "unavailable", "pending"}
}

func judgement(word string, fails, away, denied identity.Reason) gateway.Judged {
	switch word {
	case "verified":
		return gateway.Judged{Status: identity.StatusVerified}
	case "denied":
		return gateway.Judged{Status: identity.StatusVerified, Denied: denied}
	case "undecided":
		return gateway.Judged{Status: identity.StatusVerified, Denied: identity.StoreUnavailable}
	case "expired":
		return gateway.Judged{Status: identity.StatusRejected, Reason: identity.Expired}
	case "rejected":
		return gateway.Judged{Status: identity.StatusRejected, Reason: fails}
	case "unsaid":
		return gateway.Judged{Status: identity.StatusRejected}
	case "unavailable":
		return gateway.Judged{Status: identity.StatusUnavailable, Reason: away}
	case "pending":
		return gateway.Judged{Status: identity.StatusPending}
	default:
		return gateway.Judged{}
	}
}

// combination is one point of the cross product: a value for each dimension.
type combination struct {
	values  map[string]string
	facts   gateway.Facts
	outcome string
}

func (c combination) String() string {
	var b strings.Builder
	for _, d := range dimensions() {
		fmt.Fprintf(&b, "%s=%s ", d.name, c.values[d.name])
	}
	return b.String()
}

// crossProduct returns every combination of facts with its decision.
func crossProduct() []combination {
	all := []combination{{values: map[string]string{}}}
	for _, d := range dimensions() {
		next := make([]combination, 0, len(all)*len(d.values))
		for _, c := range all {
			for _, v := range d.values {
				longer := combination{values: maps.Clone(c.values), facts: c.facts}
				longer.values[d.name] = v
				d.set(&longer.facts, v)
				next = append(next, longer)
			}
		}
		all = next
	}
	for i := range all {
		all[i].outcome = outcomeOf(all[i].facts)
	}
	return all
}

func outcomeOf(f gateway.Facts) string {
	d := gateway.Decide(f)
	text := string(d.Outcome)
	if d.Grace {
		text += " by grace"
	}
	if d.Reason != "" {
		text += " " + string(d.Reason)
	}
	return fmt.Sprintf("%s, control %s, candidate %s", text, d.Control, d.Candidate)
}

// questions are the orders in which the golden table asks for the facts, so
// that it stays short: a token that governs by itself makes all else moot.
var questions = map[string][]string{
	"":    {"exempt", "problem", "companion"},
	"no":  {"token", "legacy", "mode", "rollout", "retired", "enforced", "roles_count", "grace"},
	"yes": {"legacy", "mode", "rollout", "retired", "enforced", "roles_count", "token", "grace"},
}

// rows writes the cross product down as a decision tree: facts that do not
// matter to a branch are left out, and values with the same branch share it.
// Every combination lies on exactly one row.
func rows(all []combination, ask, path []string) []string {
	if !slices.ContainsFunc(all, func(c combination) bool { return c.outcome != all[0].outcome }) {
		return []string{strings.Join(path, " ") + " -> " + all[0].outcome}
	}
	if len(ask) == 0 {
		ask = questions[all[0].values["companion"]]
	}
	name := ask[0]
	type branch struct {
		values []string
		combos []combination
		key    string
	}
	var branches []branch
	for _, d := range dimensions() {
		if d.name != name {
			continue
		}
		for _, v := range d.values {
			b := branch{values: []string{v}}
			var outcomes strings.Builder
			for _, c := range all {
				if c.values[name] == v {
					b.combos = append(b.combos, c)
					outcomes.WriteString(c.outcome + ";")
				}
			}
			b.key = outcomes.String()
			i := slices.IndexFunc(branches, func(o branch) bool { return o.key == b.key })
			if i < 0 {
				branches = append(branches, b)
				continue
			}
			branches[i].values = append(branches[i].values, v)
		}
	}
	var out []string
	for _, b := range branches {
		step := path
		if len(branches) > 1 || name == "companion" {
			step = append(slices.Clone(path), name+"="+strings.Join(b.values, "|"))
		}
		out = append(out, rows(b.combos, ask[1:], step)...)
	}
	return out
}

// row is one parsed line of the golden table.
type row struct {
	line    string
	allowed map[string][]string
	outcome string
}

func (r row) covers(c combination) bool {
	for name, values := range r.allowed {
		if !slices.Contains(values, c.values[name]) {
			return false
		}
	}
	return true
}

func parseRows(t *testing.T, text string) []row {
	t.Helper()
	known := map[string][]string{}
	for _, d := range dimensions() {
		known[d.name] = d.values
	}
	var out []row
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		conditions, outcome, ok := strings.Cut(line, " -> ")
		if !ok {
			t.Fatalf("no arrow in %q", line)
		}
		r := row{line, map[string][]string{}, outcome}
		for _, condition := range strings.Fields(conditions) {
			name, values, _ := strings.Cut(condition, "=")
			r.allowed[name] = strings.Split(values, "|")
			for _, v := range r.allowed[name] {
				if !slices.Contains(known[name], v) {
					t.Fatalf("%q is no value of %q in %q", v, name, line)
				}
			}
		}
		out = append(out, r)
	}
	return out
}

const decideHeader = `# Facts -> Decision, every combination. A fact that a row does not name does not
# matter to it; "denied" is verified but without the right by roles, "undecided"
# verified and its rights cannot be found out, "expired" rejected for that alone,
# "unsaid" rejected without a reason. Rewritten by: go test ./gateway -run TestDecide -update
`

func TestDecideIsTheGoldenTableForEveryCombinationOfFacts(t *testing.T) {
	t.Parallel()
	all := crossProduct()
	table := parseRows(t, golden(t, "decide.golden", decideHeader+strings.Join(rows(all, questions[""], nil), "\n")+"\n"))
	used := make([]bool, len(table))
	for _, c := range all {
		covering := 0
		for i, r := range table {
			if !r.covers(c) {
				continue
			}
			covering++
			used[i] = true
			if c.outcome != r.outcome {
				t.Errorf("%s\n got  %s\n want %s (%s)", c, c.outcome, r.outcome, r.line)
			}
		}
		if covering != 1 {
			t.Errorf("%d rows of the golden table cover %s, want 1", covering, c)
		}
	}
	for i, r := range table {
		if !used[i] {
			t.Errorf("no combination reaches the row %q", r.line)
		}
	}
	t.Logf("%d combinations, %d rows", len(all), len(table))
}
