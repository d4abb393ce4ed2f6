package identity

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A sample is what may be said of a credential that would not do to everybody who
// may see the team's page: claims by their names, and in full only what the
// configuration says or what is no secret of anybody's, as times, audiences, roles
// and task families. It never holds a value that names a person, and nothing of a
// credential.

// MaxSample is how long a sample is, in bytes: as much as two lines of a report,
// and little enough to be kept of every run.
const MaxSample = 200

// maxShown is how long a name in a sample is, in bytes. Claims of the presets and
// task families are shorter, tokens and keys longer.
const maxShown = 40

// Sample formats a sample of at most MaxSample bytes, without a character that would
// be cut through and without any that a terminal obeys.
func Sample(format string, args ...any) string {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...))
	return cutAt(text, MaxSample)
}

// cutAt cuts a text to a number of bytes, three of which say so.
func cutAt(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const more = "..."
	end := most - len(more)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}

// ShownName returns a name that a client may have chosen as it may stand in a
// sample; ok is false for one that may not: it is too long, or holds anything but
// letters, digits and what joins them in names of claims and task families, so
// that it may be an address or a secret.
func ShownName(name string) (shown string, ok bool) {
	if name == "" || len(name) > maxShown {
		return "", false
	}
	for _, r := range name {
		if r == utf8.RuneError || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-.:/", r) {
			return "", false
		}
	}
	return name, true
}

// ShownNames lists names as ShownName does, separated by commas, in at most so many
// bytes. What cannot be shown or finds no room is counted: "iss, sub and 3 more".
func ShownNames(names []string, most int) string {
	shown := make([]string, 0, len(names))
	for _, name := range names {
		if name, ok := ShownName(name); ok {
			shown = append(shown, name)
		}
	}
	return listed(shown, len(names), most)
}

// ShownWords lists words of the configuration: as they are, and each cut where it is
// as long as no name in a sample. See ShownNames.
func ShownWords[T ~string](words []T, most int) string {
	shown := make([]string, 0, len(words))
	for _, word := range words {
		shown = append(shown, cutAt(string(word), 2*maxShown))
	}
	return listed(shown, len(words), most)
}

// listed joins the first of the names, as many as find room, and counts the others
// of all.
func listed(shown []string, all, most int) string {
	const room = len(" and 10000 more")
	if whole := strings.Join(shown, ", "); len(shown) == all && len(whole) <= most {
		if all == 0 {
			return "none"
		}
		return whole
	}
	var b strings.Builder
	n := 0
	for _, name := range shown {
		left := room
		if n > 0 {
			left += len(", ")
		}
		if b.Len()+len(name)+left > most {
			break
		}
		if n > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
		n++
	}
	if n == 0 {
		return fmt.Sprintf("%d that cannot be shown", all)
	}
	return fmt.Sprintf("%s and %d more", &b, all-n)
}
