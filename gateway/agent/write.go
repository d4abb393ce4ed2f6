package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"crossfade/gateway/agent/token"
)

// Write is a token for another service than the gateway, in a file of its own.
type Write struct {
	// Request says for whom: something of it must be set.
	Request token.Request
	// File is the agent's own: it is replaced in one step, belongs to its owner
	// alone (0600), and is removed when there is no good token, and at the end.
	File   string
	Format Format
}

// Name says for whom the token is.
func (w *Write) Name() string { return "for " + named(w.Request) }

// ParseWrite takes AUDIENCE=FILE apart. An audience may hold = itself (a URI with a
// query), a file's name may not.
func ParseWrite(text string) (Write, error) {
	at := strings.LastIndexByte(text, '=')
	if at <= 0 || at == len(text)-1 {
		return Write{}, errors.New("write AUDIENCE=FILE, such as sts.amazonaws.com=/run/user/1000/aws-token")
	}
	return Write{Request: token.Request{Audience: text[:at]}, File: text[at+1:], Format: FormatRaw}, nil
}

// ParseFormat reads the word for the format of a Write.
func ParseFormat(word string) (Format, error) {
	switch word {
	case "", "raw":
		return FormatRaw, nil
	case "json":
		return FormatJSON, nil
	default:
		return 0, fmt.Errorf("%q is no format of a token file: use raw or json", word)
	}
}

// CheckWrites says everything that is wrong with where tokens are to be written,
// joined. others are files that the agent writes besides.
func CheckWrites(all []Write, others ...string) error {
	var errs []error
	taken := make(map[string]bool)
	for _, other := range others {
		if other != "" {
			taken[canonical(other)] = true
		}
	}
	for i := range all {
		w := &all[i]
		if named(w.Request) == "" {
			errs = append(errs, fmt.Errorf("%s: for whom is the token? Name an audience, scopes or a resource", w.File))
			continue
		}
		path := canonical(w.File)
		if taken[path] {
			errs = append(errs, fmt.Errorf("the token %s cannot be written: %s is the file of another one", w.Name(), w.File))
			continue
		}
		taken[path] = true
		if err := usable(w.File); err != nil {
			errs = append(errs, fmt.Errorf("the token %s cannot be written: %w", w.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// canonical is one spelling of a path, as far as it exists.
func canonical(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return filepath.Clean(path)
}

// usable says why a token must not be written to a file.
func usable(file string) error {
	path := canonical(file)
	dir, err := os.Stat(filepath.Dir(path))
	switch {
	case err != nil:
		return err
	case dir.Mode().Perm()&0o002 != 0 && dir.Mode()&os.ModeSticky == 0:
		return fmt.Errorf("everybody can replace files in %s: name one in a directory of your own", filepath.Dir(path))
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory: name a file in it", file)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: %w", file, errNoRegular)
	case !holdsToken(path):
		return fmt.Errorf("%s holds something else than a token, which would be lost: remove it, or name another file", file)
	}
	return nil
}

// maxTokenFile bounds what a dead agent may have left.
const maxTokenFile = 128 << 10

// holdsToken reports whether a file holds nothing, or what looks like a token that
// an agent has left.
func holdsToken(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err = errors.Join(err, f.Close()); err != nil || len(raw) > maxTokenFile {
		return false
	}
	text := strings.TrimSpace(string(raw))
	var object struct {
		AccessToken string `json:"access_token"`
	}
	if strings.HasPrefix(text, "{") {
		return json.Unmarshal(raw, &object) == nil && object.AccessToken != ""
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
