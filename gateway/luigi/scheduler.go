package luigi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Bounds on what the scheduler is asked by the gateway itself.
const (
	// askTimeout leaves room within the 10 s after which workers give up.
	askTimeout = 3 * time.Second
	// askRate is how many questions a second are put to one scheduler, and
	// askBurst how many at once: a restart in front of a busy pipeline asks once
	// for each task that is under way, and workers whose roles name families one
	// by one cause a question for each task that they register. luigid answers
	// about a thousand calls a second on one core, so that the rest is left to the
	// traffic.
	askRate  = 400
	askBurst = 400
	// maxAnswer bounds an answer; it holds the traceback of a failed task.
	maxAnswer = 4 << 20
)

// Scheduler asks Luigi's scheduler what it knows of a task.
type Scheduler struct {
	base      string
	transport http.RoundTripper
	limit     *rate.Limiter
}

// NewScheduler returns one that asks below base, the URL of the upstream.
func NewScheduler(base *url.URL, transport http.RoundTripper) *Scheduler {
	return &Scheduler{
		base: strings.TrimSuffix(base.String(), "/"), transport: transport,
		limit: rate.NewLimiter(askRate, askBurst),
	}
}

// Family returns the family under which the scheduler knows the task, "" if it
// does not know it, or only as a dependency of another one. The error says why
// it could not be asked: it is away, or has been asked too often.
func (s *Scheduler) Family(ctx context.Context, task string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := s.limit.Wait(ctx); err != nil {
		return "", fmt.Errorf("ask the scheduler for a task: asked too often: %w", err)
	}
	data, err := json.Marshal(map[string]string{"task_id": task})
	if err != nil {
		return "", fmt.Errorf("ask the scheduler for a task: %w", err)
	}
	// As a worker would, so that what stands before luigid lets it pass.
	form := url.Values{"data": {string(data)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+"/api/fetch_error", strings.NewReader(form))
	if err != nil {
		return "", fmt.Errorf("ask the scheduler for a task: %w", err)
	}
	req.Header.Set("Content-Type", formType)
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("ask the scheduler for a task: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("ask the scheduler for a task: %w", err)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("ask the scheduler for a task: it answered %s", resp.Status)
	case len(body) > maxAnswer:
		return "", errors.New("ask the scheduler for a task: the answer is too long")
	}
	return parseFetchError(body)
}

// parseFetchError reads the reply to fetch_error. A task that the scheduler does
// not know has no family in it.
func parseFetchError(body []byte) (family string, err error) {
	reply, ok := response(body)
	if ok {
		var fields []member
		if fields, ok = members(reply); ok {
			family, ok = textOf(lastMember(fields, "taskFamily"))
		}
	}
	if !ok {
		return "", errors.New("ask the scheduler for a task: its answer cannot be understood")
	}
	return family, nil
}
