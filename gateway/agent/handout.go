package agent

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// handedOut looks at a reply that may hand out a task, and obtains the token of its
// family before the worker learns of it. Without one the worker is told to stop:
// nothing has begun yet. A reply that is not understood passes as it is. Every
// method counts: the scheduler hands out work by GET, too.
func (p *Proxy) handedOut(resp *http.Response, t *trip) error {
	if p.families == nil || t.path != getWorkPath || resp.StatusCode != http.StatusOK {
		p.forwarded.Add(1)
		return nil
	}
	body, err := readReply(resp, maxWork)
	var w work
	if err == nil {
		w, err = readWork(body)
	}
	if err != nil {
		p.forwarded.Add(1)
		p.report.Say("get_work", fmt.Sprintf("crossfade agent: %s\n  Its task goes on with the run's own token, not with one of its family.\n",
			full(printable(err.Error()))))
		p.log.Warn("a reply to get_work is not understood", "error", err)
		return nil
	}
	ctx := resp.Request.Context()
	err = p.families.handOut(ctx, w, t.call.worker, p.patience)
	var lack *familyTokenError
	switch {
	case err == nil:
		p.forwarded.Add(1)
		return nil
	case ctx.Err() != nil:
		return ctx.Err() // the worker went away: the task is handed out to it again
	case !errors.As(err, &lack):
		return err
	}
	p.noToken.Add(1)
	p.refused.Store(true)
	p.report.Say(reasonNoFamily+lack.family, fmt.Sprintf("crossfade agent: REFUSED %s: %s was handed out, and does not begin without a token of its family.\n"+
		"  The agent had no token for %s: %s\n", reasonNoFamily, printable(lack.task), printable(lack.family), full(printable(lack.cause.Error()))))
	p.log.Warn("no token of a task family", "family", lack.family, "task", lack.task, "error", lack.cause)
	said := problem{
		Reason: reasonNoFamily, Message: "The agent has no token for the task family " + printable(lack.family) + ": " + full(printable(lack.cause.Error())),
		Do: "See to the agent's token source, and to families in its configuration.",
	}
	if t.abortable {
		abortReply(resp, said)
	} else {
		problemReply(resp, http.StatusServiceUnavailable, said)
	}
	return nil
}

// abortReply turns a reply into the one that an unmodified worker stops at.
func abortReply(resp *http.Response, said problem) {
	replaceReply(resp, http.StatusOK, "application/json", said.Reason, abortBody(said))
}

// problemReply turns a reply into an honest one of the agent.
func problemReply(resp *http.Response, status int, said problem) {
	replaceReply(resp, status, "application/problem+json", said.Reason, problemBody(status, said))
}

func replaceReply(resp *http.Response, status int, kind, reason string, body []byte) {
	_ = resp.Body.Close()
	resp.StatusCode, resp.Status = status, strconv.Itoa(status)+" "+http.StatusText(status)
	for _, name := range []string{"WWW-Authenticate", "Content-Encoding", "Retry-After", "Trailer", "Etag"} {
		resp.Header.Del(name)
	}
	setProblemHeaders(resp.Header, reason)
	resp.Header.Set("Content-Type", kind)
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	resp.ContentLength, resp.TransferEncoding, resp.Trailer = int64(len(body)), nil, nil
	resp.Body = io.NopCloser(bytes.NewReader(body))
}

// errLongReply is a reply that is not read any further.
var errLongReply = fmt.Errorf("the scheduler's reply to get_work is longer than %d MiB", maxWork>>20)

// readReply reads the body of a reply of at most limit bytes, and puts it back as
// it came. What it returns is not compressed any more: the scheduler knows gzip and
// nothing else.
func readReply(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, errLongReply
	}
	rest := resp.Body
	raw, err := io.ReadAll(io.LimitReader(rest, limit+1))
	resp.Body = &joined{Reader: io.MultiReader(bytes.NewReader(raw), rest), Closer: rest}
	switch encoding := resp.Header.Values("Content-Encoding"); {
	case err != nil:
		resp.Body = &joined{Reader: io.MultiReader(bytes.NewReader(raw), broken{err}), Closer: rest}
		return nil, fmt.Errorf("the scheduler's reply to get_work broke off: %w", err)
	case int64(len(raw)) > limit:
		return nil, errLongReply
	case len(encoding) == 0:
		return raw, nil
	case len(encoding) > 1 || !strings.EqualFold(encoding[0], "gzip"):
		return nil, fmt.Errorf("the scheduler's reply to get_work is encoded as %q, which the agent does not read", strings.Join(encoding, ", "))
	}
	packed, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, errWork
	}
	plain, err := io.ReadAll(io.LimitReader(packed, limit+1))
	switch {
	case err != nil:
		return nil, errWork
	case int64(len(plain)) > limit:
		return nil, errLongReply
	}
	return plain, nil
}

// broken is the rest of a body that broke off.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
