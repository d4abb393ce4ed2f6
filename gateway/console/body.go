package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

const (
	// maxBody bounds a body: what a plan of maxPlanned teams needs, and more.
	maxBody = 256 << 10
	// maxPlanned bounds the requests of a plan.
	maxPlanned = 500
)

// members are the names that an object may have, with a pointer each to what its
// value becomes.
type members map[string]any

// readBody reads the one JSON object of a request into members. No body is an
// empty object. Problems name the member.
func readBody(w http.ResponseWriter, r *http.Request, into members) *problem {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return refuseFor(http.StatusRequestEntityTooLarge, identity.BodyOversize,
			fmt.Sprintf("The body is larger than %d bytes.", large.Limit), "Send less at once.")
	case err != nil:
		return badBody(errors.New("the body ended early"))
	case len(text) == 0:
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, mediaType, "The body is not said to be JSON.", "Send it with `Content-Type: application/json`.")
	}
	if err := parse(text, into); err != nil {
		return badBody(err)
	}
	return nil
}

func badBody(err error) *problem {
	return refuse(http.StatusBadRequest, bodyInvalid, "The body cannot be read: "+err.Error()+".", "Send what "+Prefix+"openapi.json describes.")
}

// parse reads one JSON object strictly: known members only, in these very
// letters, each once, none null, and nothing after it.
func parse(text []byte, into members) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("it is no JSON object")
	}
	seen := make(map[string]bool, len(into))
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return errors.New("it is no JSON object")
		}
		target, known := into[name]
		switch {
		case !known:
			return fmt.Errorf("%q is not known here; known are %s", clip(name), strings.Join(slices.Sorted(maps.Keys(into)), ", "))
		case seen[name]:
			return fmt.Errorf("%q stands twice", name)
		}
		seen[name] = true
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return fmt.Errorf("the value of %q is no JSON", name)
		}
		if string(raw) == "null" {
			return fmt.Errorf("%q is null: leave it out", name)
		}
		if err := json.Unmarshal(raw, target); err != nil {
			return fmt.Errorf("%q must be %s", name, wanted(target))
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return errors.New("it is no JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

// wanted says what a member must be.
func wanted(target any) string {
	switch target.(type) {
	case *percentage:
		return "a whole number from 0 to 100"
	case *[]json.RawMessage:
		return "a list"
	case *string:
		return "a text"
	default:
		return "a time as in 2026-01-31T15:04:05Z"
	}
}

// percentage is one that may be missing.
type percentage struct {
	rollout.Percent
	given bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *percentage) UnmarshalJSON(text []byte) error {
	var err error
	p.Percent, err = rollout.ParsePercent(string(text))
	p.given = err == nil
	return err
}

// clip bounds what is said again of a stranger's words.
func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}
