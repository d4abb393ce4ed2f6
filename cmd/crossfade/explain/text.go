package explain

import (
	"cmp"
	"fmt"
	"strings"

	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
)

// Row is one line of an explanation for people: a label, "" where it goes on, and
// what stands there.
type Row struct{ Label, Text string }

// Answer is the explanation in a few words: what was decided, and why.
func (e Explanation) Answer() string {
	words := strings.ToUpper(strings.ReplaceAll(cmp.Or(e.Outcome, "not told"), "_", " "))
	if e.Kind == audit.KindTask {
		words = "TASK " + words
	}
	if e.Kind == audit.KindProbe {
		words = "PROBE " + words
	}
	if e.Reason != "" {
		words += " " + e.Reason
	}
	if e.Count > 1 {
		words += fmt.Sprintf(" (%d requests)", e.Count)
	}
	return words
}

// Rows are the explanation in the order in which people ask: why, who acts, what
// to do, then what it was about.
func (e Explanation) Rows() []Row {
	var rows []Row
	add := func(label, format string, args ...any) { rows = append(rows, Row{label, fmt.Sprintf(format, args...)}) }
	list := func(label string, texts []string) {
		for i, text := range texts {
			if i > 0 {
				label = ""
			}
			rows = append(rows, Row{label, text})
		}
	}
	var why []string
	for _, text := range []string{e.Means, e.Detail} {
		if text != "" {
			why = append(why, text)
		}
	}
	list("why", append(why, e.Why...))
	if e.Owner != "" {
		add("who acts", "%s", e.owner(e.Owner))
		add("do", "%s", e.Do)
	}
	add("who", "%s", e.who())
	label := "presented"
	for _, c := range e.Presented {
		add(label, "%s", c.text(len(e.Presented) > 1))
		label = ""
		if c.Means != "" && c.Reason != e.Reason {
			add("", "%s", c.Means)
		}
		if c.Detail != "" && c.Detail != e.Detail {
			add("", "%s", c.Detail)
		}
	}
	if len(e.Presented) == 0 {
		add(label, "nothing")
	}
	if e.Kind != audit.KindProbe {
		add("asked", "%s", e.Call.text())
	}
	if run := e.run(); run != "" {
		add("run", "%s", run)
	}
	if e.Percent != nil {
		text := fmt.Sprintf("team at %d%%", *e.Percent)
		if e.Bucket != nil {
			text += fmt.Sprintf("; %s is selected from %d%% on", e.Bucket.Key, e.Bucket.From)
		}
		add("rollout", "%s", text)
	}
	if v := e.Verdict; v != nil {
		add("shadow", "%s", strings.TrimSpace(v.Verdict+" "+v.Reason))
		for _, text := range []string{v.Means, v.Why} {
			if text != "" && text != e.Means {
				add("", "%s", text)
			}
		}
		if v.Do != "" && v.Do != e.Do {
			add("", "Do (%s): %s", e.owner(v.Owner), v.Do)
		}
	} else if e.Kind == audit.KindUse || e.Kind == audit.KindCount {
		add("shadow", "the line tells no verdict")
	}
	if e.Mode != "" {
		add("mode", "%s", e.Mode)
	}
	add("line", "%s", e.Line.text())
	list("today", e.Now)
	list("not known", e.Unknown)
	return rows
}

// owner is who acts, by name where it is the team. What is unassigned has none: to
// give it one is the platform's job.
func (e Explanation) owner(o identity.Owner) string {
	switch {
	case o != identity.OwnerTeam || e.Team == "":
		return string(o)
	case e.Team == string(identity.Unassigned):
		return string(identity.OwnerPlatform)
	default:
		return "team " + e.Team
	}
}

func (e Explanation) who() string {
	if !e.Verified {
		return "nobody was verified"
	}
	text := fmt.Sprintf("%s, team %s", e.Account, e.Team)
	refused, unjudged := false, false
	for _, c := range e.Presented {
		switch {
		case c.Status == identity.StatusVerified.String() && c.Name != "":
			return text + ", verified by " + c.Name
		case c.Status == identity.StatusVerified.String():
			return text + ", verified by its token"
		}
		refused = refused || c.Governs && c.Reason != ""
		unjudged = unjudged || c.Governs && c.Status == identity.StatusUnavailable.String()
	}
	if unjudged {
		return text + ": its credential could not be judged"
	}
	if refused {
		return text + ": its credential is known, and not accepted"
	}
	return text
}

func (c Credential) text(several bool) string {
	text := c.Scheme
	switch {
	case c.Name != "":
		text = c.Name
	case c.Subject != "":
		text = fmt.Sprintf("token of subject %s from %s", c.Subject, c.Issuer)
	case c.Scheme == identity.SchemeOIDC.String():
		text = "token"
	}
	if c.TokenID != "" {
		text += ", id " + c.TokenID
	}
	if several {
		if c.Governs {
			text += ", which governs"
		} else {
			text += ", only evaluated"
		}
	}
	if said := strings.TrimSpace(c.Status + " " + c.Reason); said != "" {
		text += ": " + said
	}
	if c.Unverified != "" {
		text += " (it says: " + c.Unverified + ")"
	}
	return text
}

func (c Call) text() string {
	var parts []string
	for _, p := range []string{c.Action, cmp.Or(c.RPC, c.Path)} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	text := cmp.Or(strings.Join(parts, " "), "a call that is not known")
	if c.Task != "" {
		text += " of task " + c.Task
	} else if c.Family != "" {
		text += " on " + c.Family
	}
	if c.Client != "" {
		text += ", " + strings.TrimSpace(c.Method+" from "+c.Client)
	}
	if c.Claimed {
		text += " (the client's word)"
	}
	return text
}

func (e Explanation) run() string {
	var parts []string
	for _, p := range []struct{ what, value string }{
		{"", e.Call.Run}, {"pipeline ", e.Pipeline}, {"its client calls it ", e.Call.ClientRun},
	} {
		if p.value != "" {
			parts = append(parts, p.what+p.value)
		}
	}
	return strings.Join(parts, ", ")
}

func (l Line) text() string {
	text := fmt.Sprintf("%s:%d, %d of replica %s", l.File, l.Line, l.Seq, l.Replica)
	switch l.Seal {
	case audit.Sealed:
		return text + "; the next line of the chain names it"
	case audit.Broken:
		return text + "; ALTERED: the next line of the chain names another one (crossfade audit verify says more)"
	default:
		return text + "; no line stands behind it yet that would name it"
	}
}
