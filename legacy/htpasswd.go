package legacy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"crossfade/gateway/identity"
)

const (
	// reservedUser marks a JWT in the password of Basic, so no password may
	// belong to it.
	reservedUser = "oidc"
	// maxLine and maxUser bound a line and its user name, in bytes; the
	// htpasswd tool makes names of at most 255.
	maxLine = 4096
	maxUser = 255
)

// loadUsers reads a file in the format of Apache's htpasswd: "user:hash" a
// line. What follows a second colon is a comment, as for Apache and nginx.
// Lines that are blank or begin with "#" are skipped, and spaces around a line
// and line ends of Windows do not matter.
func loadUsers(path string, dir *identity.Directory) (map[string]*user, error) {
	if path == "" {
		return nil, nil
	}
	m := &mistakes{file: path}
	data, ok := m.read()
	if !ok {
		return nil, m.err()
	}
	users := map[string]*user{}
	number := 0
	for raw := range bytes.SplitSeq(data, []byte("\n")) {
		number++
		if len(raw) > maxLine {
			m.add(number, fmt.Sprintf("the line is longer than %d bytes", maxLine), "check that this is an htpasswd file")
			continue
		}
		line := strings.Trim(string(raw), " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, colon := strings.Cut(line, ":")
		if !colon {
			m.add(number, "there is no colon", `write "user:hash", or begin the line with # if it is a comment`)
			continue
		}
		sound := true
		if wrong, do := checkUser(name); wrong != "" {
			m.add(number, wrong, do)
			sound = false
		} else if first, taken := users[name]; taken {
			m.add(number, fmt.Sprintf("the user stands on line %d already", first.line), "delete one of the two lines")
			sound = false
		}
		value, _, _ := strings.Cut(rest, ":")
		h, wrong := parseHash(value)
		if wrong != "" {
			m.add(number, wrong, rehash)
		}
		if !sound {
			continue
		}
		// A user whose hash is refused is kept too, for the sake of duplicates:
		// without a hash it reaches no keyring, because Load fails.
		users[name] = &user{credential: newCredential(identity.SchemeBasic, name, name, dir), hash: h}
		users[name].line = number
	}
	return users, m.err()
}

// checkUser returns what is wrong with a user name and what to do about it.
func checkUser(name string) (wrong, do string) {
	switch {
	case name == "":
		return "the user name is empty", "write a name before the colon, or delete the line"
	case name == reservedUser:
		return `the user name "oidc" is reserved for clients that send a token as the password of Basic`, "give the user another name"
	case len(name) > maxUser:
		return fmt.Sprintf("the user name is longer than %d bytes", maxUser), "check that this is an htpasswd file"
	case !utf8.ValidString(name):
		// In logs all such names would look alike.
		return "the user name is not UTF-8", "save the file as UTF-8"
	case strings.ContainsFunc(name, unprintable):
		return "the user name holds a control or invisible character", "delete the character, or give the user another name"
	case strings.TrimSpace(name) != name:
		return "there is a space between the user name and the colon", "delete the space"
	}
	return "", ""
}

// unprintable reports characters that would let two names look alike in a log.
// A plain space is allowed inside a name.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }
