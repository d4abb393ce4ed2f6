package gateway

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

var errTooLong = errors.New("it is too long")

// readReply reads the body of a reply of at most limit bytes, in whatever form,
// and puts it back as it came. What it returns is not compressed any more: the
// scheduler knows gzip and nothing else. After an error the reply is still
// whole, though nobody can say what is in it.
func readReply(resp *http.Response, limit int64) (plain []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read the upstream's reply: %w", err)
		}
	}()
	if resp.Body == nil || resp.ContentLength > limit {
		return nil, errTooLong
	}
	body := resp.Body
	raw, err := readUpTo(body, limit+1, resp.ContentLength)
	rest := io.Reader(body)
	if err != nil {
		rest = brokenOff{err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), rest), body}
	switch encoding := resp.Header["Content-Encoding"]; {
	case err != nil:
		return nil, err
	case int64(len(raw)) > limit:
		return nil, errTooLong
	case len(encoding) == 0:
		return raw, nil
	case len(encoding) == 1 && strings.EqualFold(encoding[0], "gzip"):
		return gunzip(raw, limit)
	default:
		return nil, fmt.Errorf("it is encoded as %q", encoding)
	}
}

func gunzip(packed []byte, limit int64) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(plain)) > limit {
		err = errTooLong
	}
	if err != nil {
		return nil, err
	}
	return plain, nil
}

// brokenOff is the rest of a body that broke off.
type brokenOff struct{ err error }

func (b brokenOff) Read([]byte) (int, error) { return 0, b.err }
