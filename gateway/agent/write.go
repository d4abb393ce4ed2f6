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
// joined. others are files that the agent reads, or writes besides: a secret looks
// like a token, and would be written over.
func CheckWrites(all []Write, others ...string) error {
	var errs []error
	taken := make(map[string]string)
	for _, other := range others {
		if other != "" {
			taken[canonical(other)] = "a file that the agent has for something else"
		}
	}
	for i := range all {
		w := &all[i]
		if named(w.Request) == "" {
			errs = append(errs, fmt.Errorf("%s: for whom is the token? Name an audience, scopes or a resource", w.File))
			continue
		}
		path := canonical(w.File)
		if whose := taken[path]; whose != "" {
			errs = append(errs, fmt.Errorf("the token %s cannot be written: %s is %s", w.Name(), w.File, whose))
			continue
		}
		taken[path] = "the file of another one"
		if err := usable(w.File); err != nil {
			errs = append(errs, fmt.Errorf("the token %s cannot be written: %w", w.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// maxLinks is how many links are followed to a file that does not exist.
const maxLinks = 16

// canonical is one spelling of a path, as far as it exists: of a link to nothing,
// where that would be.
func canonical(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	for range maxLinks {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			return target
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			break
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil {
			break // it does not exist
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return filepath.Clean(path)
}

// CheckTokenDir says why a directory cannot be that of the tokens of families:
// others are files that the agent reads, and what looks like a token there is
// removed.
func CheckTokenDir(dir string, others ...string) error {
	for _, other := range others {
		if other != "" && (canonical(filepath.Dir(other)) == canonical(dir) || filepath.Dir(canonical(other)) == canonical(dir)) {
			return fmt.Errorf("%s stands in %s: name a directory that has nothing but tokens", other, dir)
		}
	}
	return nil
}

// follow returns where a file is that may be a symbolic link. One in a directory
// that everybody can write to may be anybody's, and could name any file of ours.
func follow(file string) (string, error) {
	if _, err := os.Readlink(file); err == nil {
		if dir, err := os.Stat(filepath.Dir(file)); err != nil || dir.Mode().Perm()&0o002 != 0 {
			return "", fmt.Errorf("%s is a link in a directory that everybody can write to: name what it points to", file)
		}
	}
	return canonical(file), nil
}

// usable says why a token must not be written to a file.
func usable(file string) error {
	path, err := follow(file)
	if err != nil {
		return err
	}
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
