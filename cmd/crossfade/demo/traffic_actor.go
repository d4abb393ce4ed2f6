package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi/captures"
)

const (
	// workerTimeout is how long a worker waits for a reply
	// (luigi.cfg, [core] rpc-connect-timeout, 10 s by default).
	workerTimeout = 10 * time.Second
	// maxReply is far above any recorded reply.
	maxReply = 4 << 20
)

// actor is one recorded worker, or one browser, with all that it sent.
type actor struct {
	name  string // its recorded name; "" for a browser
	lines []line
}

// line is one recorded request.
type line struct {
	seq        int
	verb, path string
	query      string
	body       string
	header     map[string]string
	method     string // of the remote procedure call, or the path
	vital      bool   // the worker stops without a proper reply
	offset     time.Duration
}

// sentHeaders are replayed as recorded. Accept-Encoding is left to the HTTP
// client, which undoes what it asks for.
var sentHeaders = [...]string{"User-Agent", "Accept", "Content-Type"}

// actors splits a recording into its workers. Some calls name no worker; the
// recorded account tells whose they are, because each worker had its own.
func actors(recording string) ([]actor, time.Duration, error) {
	exchanges, err := captures.Load(recording)
	if err != nil {
		return nil, 0, err
	}
	var length time.Duration
	byAccount := make(map[string]int)
	var all []actor
	for _, e := range exchanges {
		if e.Injected() {
			continue // the recorder's challenge: clients here send credentials at once
		}
		account := e.RequestHeaders["Authorization"]
		at, known := byAccount[account]
		if !known {
			at = len(all)
			byAccount[account] = at
			all = append(all, actor{})
		}
		method, rpc := strings.CutPrefix(e.Path, "/api/")
		spoken := false
		if rpc && e.Method == http.MethodPost {
			form, err := url.ParseQuery(e.RequestBody)
			if err != nil {
				return nil, 0, fmt.Errorf("exchange %d: %w", e.Seq, err)
			}
			call, err := readCall(method, last(form["data"], "{}"))
			if err != nil {
				return nil, 0, fmt.Errorf("exchange %d: %w", e.Seq, err)
			}
			if call.worker != "" && all[at].name != "" && call.worker != all[at].name {
				return nil, 0, fmt.Errorf("exchange %d: one account speaks for two workers", e.Seq)
			}
			if spoken = call.worker != ""; spoken {
				all[at].name = call.worker
			}
		}
		all[at].lines = append(all[at].lines, line{
			seq: e.Seq, verb: e.Method, path: e.Path, query: e.Query, body: e.RequestBody, header: e.RequestHeaders,
			method: method, vital: spoken && method != "ping", offset: e.Offset(),
		})
		length = max(length, e.Offset())
	}
	return all, length, nil
}

func (t *Traffic) request(ctx context.Context, base string, l line, rename *strings.Replacer) (*http.Request, error) {
	target := base + l.path
	if l.query != "" {
		target += "?" + rename.Replace(l.query)
	}
	var body io.Reader
	if l.body != "" {
		body = strings.NewReader(rename.Replace(l.body))
	}
	r, err := http.NewRequestWithContext(ctx, l.verb, target, body)
	if err != nil {
		return nil, err
	}
	for _, name := range sentHeaders {
		if value, ok := l.header[name]; ok {
			r.Header.Set(name, value)
		}
	}
	if t.o.User != "" {
		r.SetBasicAuth(t.o.User, t.o.Password.Reveal())
	}
	return r, nil
}

// send gets one reply and judges it as an unmodified worker does: a call in
// its name needs a 200 with a member "response", except that a ping may fail;
// reports of a running task fail that task alone.
func (t *Traffic) send(r *http.Request, l line) Result {
	// A request that is under way when the replay ends is still waited for: it
	// was sent, so it counts.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), workerTimeout)
	defer cancel()
	result := Result{Seq: l.seq, Method: l.method}
	resp, err := t.client.Do(r.WithContext(ctx))
	if err != nil {
		result.Ended, result.Err = l.vital, err
		return result
	}
	defer func() { _ = resp.Body.Close() }()
	result.Status = resp.StatusCode
	result.Reason = identity.Reason(resp.Header.Get("Crossfade-Reason"))
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		result.Ended, result.Err = l.vital, fmt.Errorf("read the reply: %w", err)
		return result
	}
	result.Ended = l.vital && (resp.StatusCode != http.StatusOK || !hasResponse(body))
	return result
}

// sameClient returns c without following redirects: one reply a request is
// what is counted.
func sameClient(c *http.Client) *http.Client {
	var own http.Client
	if c != nil {
		own = *c
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// hasResponse reports whether a reply is a JSON object with a member
// "response", whatever its value.
func hasResponse(body []byte) bool {
	var members map[string]json.RawMessage
	if json.NewDecoder(bytes.NewReader(body)).Decode(&members) != nil {
		return false
	}
	_, ok := members["response"]
	return ok
}
