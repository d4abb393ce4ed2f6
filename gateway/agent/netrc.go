package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"crossfade/gateway/identity"
)

// netrcEntry is where in a netrc file the entry of one machine stands.
type netrcEntry struct {
	start, end      int // bytes; the end is behind the line break, if one ends it
	login, password string
}

// netrcToken is a word of the file, and where it stands.
type netrcToken struct {
	text       string
	start, end int
}

// netrcTokens splits a netrc file as Python's netrc does, which is what
// python-requests reads it with: at white space, with double quotes and
// backslashes around and before what is none. A # begins a comment where a word
// could begin, to the end of the line, but within an entry only of its own: a
// password may begin with one. The body of a macro is skipped.
func netrcTokens(text string) []netrcToken {
	var all []netrcToken
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case c == '#' && !takesValue(all):
			i = lineEnd(text, i)
			continue
		}
		start := i
		var word strings.Builder
		if text[i] == '"' {
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				word.WriteByte(text[i])
			}
			i = min(i+1, len(text))
		} else {
			for ; i < len(text) && !strings.ContainsRune(" \t\r\n", rune(text[i])); i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				word.WriteByte(text[i])
			}
		}
		all = append(all, netrcToken{word.String(), start, i})
		if n := len(all); n >= 2 && all[n-2].text == "macdef" && !isValue(all, n-2) {
			if end := strings.Index(text[i:], "\n\n"); end >= 0 {
				i += end + 1
			} else {
				i = len(text)
			}
		}
	}
	return all
}

// takesValue reports whether the last word wants another one behind it.
func takesValue(all []netrcToken) bool {
	n := len(all)
	if n == 0 || isValue(all, n-1) {
		return false
	}
	switch all[n-1].text {
	case "machine", "login", "user", "account", "password", "macdef":
		return true
	default:
		return false
	}
}

// isValue reports whether the word at n is what the one before it wants: a
// password may well be "machine".
func isValue(all []netrcToken, n int) bool {
	return n > 0 && takesValue(all[:n])
}

// lineEnd returns where the line of i ends, behind its line break.
func lineEnd(text string, i int) int {
	if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
		return i + end + 1
	}
	return len(text)
}

// netrcEntries returns the entries of a machine, in their order. Python uses the
// last one, curl the first.
func netrcEntries(text, machine string) []netrcEntry {
	all := netrcTokens(text)
	var found []netrcEntry
	var current *netrcEntry
	finish := func(end int) {
		if current != nil {
			current.end = end
			found, current = append(found, *current), nil
		}
	}
	last := 0 // where the last word of an entry ends
	for i := 0; i < len(all); i++ {
		word, value := all[i].text, ""
		if takesValue(all[:i+1]) && i+1 < len(all) {
			value = all[i+1].text
		}
		switch word {
		case "machine", "default", "macdef":
			finish(last)
			if word == "machine" && value == machine {
				current = &netrcEntry{start: all[i].start}
			}
		case "login", "user":
			if current != nil {
				current.login = value
			}
		case "password":
			if current != nil {
				current.password = value
			}
		}
		if takesValue(all[:i+1]) && i+1 < len(all) { // what nobody knows is no part of an entry
			i++
			last = all[i].end
		}
	}
	finish(last)
	for i := range found {
		// The line break goes with an entry that has its lines for itself, and so
		// does the white space before it: Python stumbles over a comment that
		// stands behind a line without a word.
		if indented := strings.TrimRight(text[:found[i].start], " \t"); lineBegins(indented, len(indented)) {
			found[i].start = len(indented)
		}
		if rest := text[found[i].end:lineEnd(text, found[i].end)]; strings.TrimSpace(rest) == "" && lineBegins(text, found[i].start) {
			found[i].end += len(rest)
		}
	}
	return found
}

func lineBegins(text string, i int) bool { return i == 0 || text[i-1] == '\n' }

// EditNetrc returns the text of a netrc file in which a machine has exactly one
// entry, with the user TokenUser and the token for its password; with an empty
// token, none. Everything else stays byte for byte, comments included. The entry
// stands where its first one stood, or at the beginning: an entry "default" ends
// the search of some programs.
func EditNetrc(text, machine string, token identity.Secret) string {
	return setNetrc(text, machine, TokenUser, token)
}

// setNetrc is EditNetrc with any user and password.
func setNetrc(text, machine, user string, password identity.Secret) string {
	entry := ""
	if !password.Empty() {
		entry = fmt.Sprintf("machine %s login %s password %s\n", machine, netrcWord(user), netrcWord(password.Reveal()))
	}
	entries := netrcEntries(text, machine)
	if len(entries) == 0 {
		return entry + text
	}
	var b strings.Builder
	at := 0
	for i, e := range entries {
		before := text[at:e.start]
		b.WriteString(before)
		if i == 0 && entry != "" {
			if !lineBegins(text, e.start) {
				b.WriteByte('\n')
			}
			b.WriteString(entry)
		}
		at = e.end
		if i == 0 && entry != "" && !lineBegins(text, at) && strings.HasPrefix(text[at:], "\n") {
			at++ // the new entry has brought its own
		}
	}
	b.WriteString(text[at:])
	return b.String()
}

// netrcWord writes a word so that it is read as it is.
func netrcWord(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\r\n\"\\#") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
}

// NetrcCredential returns what a netrc file has for a machine, the way that
// python-requests finds it. ok is false if there is nothing.
func NetrcCredential(text, machine string) (user string, password identity.Secret, ok bool) {
	entries := netrcEntries(text, machine)
	if len(entries) == 0 {
		return "", identity.Secret{}, false
	}
	last := entries[len(entries)-1]
	return last.login, identity.NewSecret(last.password), last.password != ""
}

// errNoRegular refuses to write through what is no plain file.
var errNoRegular = errors.New("it is no regular file")

// writePrivate writes a file so that readers see the old one or the new one and
// nobody but its owner either. No symbolic link is followed: whoever wants that
// does it (follow).
func writePrivate(path string, text []byte) (err error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("write %s: %w", path, errNoRegular)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readIfThere reads a file; one that does not exist is empty.
func readIfThere(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}
