package console

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"crossfade/gateway/identity"
)

// visible writes what a client chose so that it looks like what it is: what has no
// looks of its own, or turns the text around that follows, is named.
func visible(text any) string {
	var b strings.Builder
	for _, r := range fmt.Sprint(text) {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "<%U>", r)
		}
	}
	return b.String()
}

// teamPath is the address of a team's page.
func teamPath(team identity.Team) string { return "/teams/" + url.PathEscape(string(team)) }

// moment is a time as seen from another one; the zero time is never.
type moment struct{ at, now time.Time }

// Known reports whether it is a time at all.
func (m moment) Known() bool { return !m.at.IsZero() }

// ISO is the time for programs, Exact for people, and Clock without its year.
func (m moment) ISO() string   { return m.at.UTC().Format(time.RFC3339) }
func (m moment) Exact() string { return m.at.UTC().Format("Mon 2 Jan 2006 15:04:05 MST") }
func (m moment) Clock() string { return m.at.UTC().Format("Mon 2 Jan 15:04") }

// Ago is how long that is before, or after, as people say it.
func (m moment) Ago() string {
	if !m.Known() {
		return "never"
	}
	d := m.now.Sub(m.at)
	if d < 0 {
		return "in " + short(-d)
	}
	return short(d) + " ago"
}

// short writes a duration in its largest unit, rounded down.
func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d/time.Hour))
	default:
		return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
	}
}

// counted is "1 run" or "1,240 runs".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return thousands(n) + " " + what + "s"
}

// thousands writes a whole number with commas.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// round writes a number of runs that is no whole one: as much of it as tells
// something.
func round(x float64) string {
	switch {
	case x <= 0:
		return "0"
	case x < 0.95:
		return strconv.FormatFloat(x, 'g', 1, 64)
	default:
		return thousands(int(x + 0.5))
	}
}

// ownerOf names who acts, for somebody who looks at a team.
func ownerOf(team identity.Team, owner identity.Owner) string {
	switch owner {
	case identity.OwnerTeam:
		return "team " + visible(team)
	case identity.OwnerPlatform:
		return "the platform team"
	case identity.OwnerIDP:
		return "who runs the identity provider"
	case identity.OwnerSecurity:
		return "security"
	case "":
		return ""
	default:
		return string(owner)
	}
}
