package luigi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/luigi"
)

// transport answers at once, without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTheSchedulerIsAskedAsAWorkerWouldAsk(t *testing.T) {
	t.Parallel()
	const task = `Sync_CRM_2024_"&ö_e0763b9989`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		call := luigi.Classify(r.Method, strings.TrimPrefix(r.URL.Path, "/luigi"), r.URL.RawQuery, r.Header.Get("Content-Type"), body)
		if call.Problem != "" || call.Method != "fetch_error" || call.TaskID != task || r.URL.Path != "/luigi/api/fetch_error" {
			t.Errorf("asked %s %s: %+v", r.Method, r.URL.Path, call)
		}
		_, _ = io.WriteString(w, `{"response": {"taskId": "x", "error": "tr\"ace", "taskParams": {"taskFamily": "No", "n": NaN}, "taskModule": null, "taskFamily": "Sync_CRM"}}`)
	}))
	defer server.Close()
	s := luigi.NewScheduler(mustParse(t, server.URL+"/luigi/"), server.Client().Transport)
	if family, err := s.Family(t.Context(), task); family != "Sync_CRM" || err != nil {
		t.Errorf("%q, %v", family, err)
	}
}

func TestWhatTheSchedulerAnswersIsTakenAtItsWordOrNotAtAll(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		body   string
		fails  bool
		family string
	}{
		"a task that it knows":                   {200, `{"response": {"taskFamily": "A"}}`, false, "A"},
		"a task that it does not know":           {200, `{"response": {"taskId": "A_1", "error": ""}}`, false, ""},
		"a task that is only a dependency yet":   {200, `{"response": {"taskFamily": ""}}`, false, ""},
		"an error":                               {500, `{"response": {"taskFamily": "A"}}`, true, ""},
		"a login page in front of it":            {200, `<html>`, true, ""},
		"a refusal in front of it":               {401, `{}`, true, ""},
		"an answer of another kind":              {200, `{"response": null}`, true, ""},
		"a family that is no text":               {200, `{"response": {"taskFamily": ["A"]}}`, true, ""},
		"an answer that is longer than any":      {200, `{"response": {"error": "` + strings.Repeat("x", 5<<20) + `", "taskFamily": "A"}}`, true, ""},
		"an answer that breaks off in its midst": {200, `{"response": {"taskFamily": "A"`, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := luigi.NewScheduler(mustParse(t, "http://luigid"), transport(func(*http.Request) (*http.Response, error) {
				return answer(tt.status, tt.body), nil
			}))
			family, err := s.Family(t.Context(), "A_1")
			if family != tt.family || (err != nil) != tt.fails {
				t.Errorf("%q, %v", family, err)
			}
		})
	}
}

func TestASchedulerThatHangsIsWaitedForWellBelowTheTimeOutOfWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := luigi.NewScheduler(mustParse(t, "http://luigid"), transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		began := time.Now()
		_, err := s.Family(t.Context(), "A_1")
		if waited := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || waited > 5*time.Second {
			t.Errorf("%v after %v", err, waited)
		}
	})
}

func TestTheSchedulerIsAskedSoOftenASecondAndSoOftenAtOnceAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		s := luigi.NewScheduler(mustParse(t, "http://luigid"), transport(func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			return answer(200, `{"response": {"taskFamily": "A"}}`), nil
		}))
		var wg sync.WaitGroup
		var refused atomic.Int64
		for range 3000 {
			wg.Go(func() {
				if _, err := s.Family(t.Context(), "A_1"); err != nil {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := asked.Load(); n != 400 {
			t.Errorf("%d were asked at once", n)
		}
		wg.Wait()
		if n := asked.Load(); n < 1550 || n > 1650 || refused.Load() != 3000-n {
			t.Errorf("%d were asked within three seconds, and %d refused", n, refused.Load())
		}
	})
}
