// Package captures holds recorded traffic of Luigi's central scheduler
// (luigid 3.8.1): real workers, and a real browser on the visualiser. Tests
// judge it and the demo replays it.
//
// The credentials inside were made up for the recording and open nothing.
package captures

import (
	"bufio"
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The recordings.
const (
	// Success: two workers under two accounts, several task families,
	// batching, resources, progress and status messages.
	Success = "pipeline-success"
	// Failure: a task that fails and an external task that is missing.
	Failure = "pipeline-failure"
	// Contention: two workers under two accounts that compete for one
	// resource; two of the replies were compressed on the wire.
	Contention = "pipeline-contention"
	// Visualiser: a browser that loads pages, polls and clicks. The 401
	// challenges were injected by the recorder (see Exchange.Injected).
	Visualiser = "visualiser-session"
)

//go:embed *.jsonl
var files embed.FS

// Names lists the recordings in a fixed order.
func Names() []string { return []string{Success, Failure, Contention, Visualiser} }

// Exchange is one request with its reply.
type Exchange struct {
	// Seq counts from 1 in the order in which the requests arrived.
	Seq    int    `json:"seq"`
	Method string `json:"method"`
	// Path is the path as it stood on the wire, still escaped.
	Path string `json:"path"`
	// Query is the raw query without its question mark; "" when there is none.
	Query          string            `json:"query"`
	RequestHeaders map[string]string `json:"request_headers"`
	RequestBody    string            `json:"request_body"`
	Status         int               `json:"status"`
	// ResponseHeaders are those of the wire: Content-Length and
	// Content-Encoding describe the transfer, not ResponseBody.
	ResponseHeaders map[string]string `json:"response_headers"`
	// ResponseBody is the decoded body, "" when OmittedBytes is not 0.
	ResponseBody string `json:"response_body"`
	// OmittedBytes is the size of a static body that was not recorded.
	OmittedBytes int `json:"response_body_omitted_bytes"`
	// OffsetMS is the time of arrival in milliseconds after the first request.
	OffsetMS int `json:"offset_ms"`
	// Conn numbers the client's connections from 1.
	Conn int    `json:"conn"`
	Note string `json:"note"`
}

// Offset is the time of arrival after the first request.
func (e Exchange) Offset() time.Duration { return time.Duration(e.OffsetMS) * time.Millisecond }

// Injected reports whether the recorder answered instead of the scheduler.
func (e Exchange) Injected() bool { return e.Note == "injected" }

// Load returns the exchanges of one recording in order of arrival. The result
// belongs to the caller.
func Load(name string) ([]Exchange, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("no recording %q: choose one of %s", name, strings.Join(Names(), ", "))
	}
	f, err := files.Open(name + ".jsonl")
	if err != nil {
		return nil, fmt.Errorf("open recording %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // an embedded file: closing cannot fail

	var out []Exchange
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Exchange
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("recording %s, line %d: %w", name, len(out)+1, err)
		}
		out = append(out, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read recording %s: %w", name, err)
	}
	return out, nil
}
