package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func TestInEnforceEachCredentialGetsItsAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	good, foreign := s.token("svc-etl", audience), s.token("svc-etl", "api://finance")
	for name, tc := range map[string]struct {
		ask request
		// get and post are the statuses of a page and of a worker's call.
		get, post int
		reason    string
		user      string // that the upstream hears of
	}{
		"a password": {
			ask: etl(request{}), get: 200, post: 200, user: "svc-etl",
		},
		"a password with a good companion": {
			ask: etl(request{companion: good}), get: 200, post: 200, user: "svc-etl",
		},
		"a password with a companion for someone else is let in, for now": {
			ask: etl(request{companion: foreign}), get: 200, post: 200, user: "svc-etl",
		},
		"a token": {
			ask: request{bearer: good}, get: 200, post: 200, user: "svc-etl",
		},
		"a token as the password of the user oidc": {
			ask: request{user: "oidc", password: good}, get: 200, post: 200, user: "svc-etl",
		},
		"a token for another audience": {
			ask: request{bearer: foreign}, get: 401, post: 200, reason: "aud_mismatch",
		},
		"no token at all in the place of one": {
			ask: request{bearer: "a.b.c"}, get: 401, post: 200, reason: "malformed_jwt",
		},
		"a wrong password": {
			ask: request{user: "svc-etl", password: "guess"}, get: 401, post: 200, reason: "legacy_unknown",
		},
		"an unknown user": {
			ask: request{user: "nobody", password: "guess"}, get: 401, post: 200, reason: "legacy_unknown",
		},
		"a wrong password with a good companion": {
			ask: request{user: "svc-etl", password: "guess", companion: good}, get: 401, post: 200, reason: "legacy_unknown",
		},
		"a companion alone": {
			ask: request{companion: good}, get: 401, post: 200, reason: "token_absent",
		},
		"nothing": {
			ask: request{}, get: 401, post: 200, reason: "token_absent",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, way := range []struct {
				like   request
				status int
			}{{pages(), tc.get}, {ping("w"), tc.post}} {
				ask := tc.ask
				ask.method, ask.path, ask.body = way.like.method, way.like.path, way.like.body
				ask.header = http.Header{"X-Forwarded-User": {"admin"}, "X_auth_request_user": {"admin"}}
				before := s.upstream.count()
				got := g.send(ask)
				if got.status != way.status || got.header.Get("Crossfade-Reason") != tc.reason {
					t.Fatalf("%s: got %v, want status %d and reason %q", way.like.method, got, way.status, tc.reason)
				}
				if tc.reason != "" {
					refusal(t, got, tc.reason, way.like.method == http.MethodPost)
					if n := s.upstream.count(); n != before {
						t.Error("a refused request reached the upstream")
					}
					continue
				}
				seen := s.upstream.last()
				if user := seen.Header.Get("X-Forwarded-User"); user != tc.user {
					t.Errorf("the upstream hears of %q, want %q", user, tc.user)
				}
				for _, name := range []string{"Authorization", "Crossfade-Token", "X_auth_request_user"} {
					if _, there := seen.Header[name]; there {
						t.Errorf("%s reached the upstream", name)
					}
				}
				legacy := tc.ask.user != "" && tc.ask.user != "oidc"
				if announced := got.header.Get("Deprecation") != ""; announced != legacy {
					t.Errorf("Deprecation is announced: %v, want %v", announced, legacy)
				}
			}
		})
	}
}

// refusal checks the two shapes of a refusal: Luigi's worker gets one that it
// stops at, everyone else an honest status.
func refusal(t *testing.T, got reply, reason string, worker bool) {
	t.Helper()
	var body map[string]json.RawMessage
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatalf("the refusal is no JSON: %v in %q", err, got.body)
	}
	problem := []byte(got.body)
	if worker {
		if _, there := body["response"]; there {
			t.Error("a worker would take this for an answer: it has the key response")
		}
		problem = body["error"]
	} else if len(got.header.Values("WWW-Authenticate")) == 0 {
		t.Error("a 401 without a challenge")
	}
	var told struct {
		Reason, Message, Do string
		TraceID             string `json:"trace_id"`
	}
	if err := json.Unmarshal(problem, &told); err != nil {
		t.Fatal(err)
	}
	if told.Reason != reason || told.Message == "" || told.TraceID == "" || !strings.Contains(told.Do, "#platform") {
		t.Errorf("the refusal tells too little: %+v", told)
	}
}

func TestAtAHundredPercentPasswordsAreRefusedUntilThePercentageIsLowered(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	s := newSite(t)
	s.configure("redis", redis.URL())
	g := s.start().loaded()

	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	// On a busy machine a latch may take more than the 50 ms that a request waits.
	s.eventually("the run before the raise has its latch", func() bool {
		if got := g.send(etl(addTask("w1", "LoadUsers"))); got.status != 200 || !strings.Contains(got.body, `"response"`) {
			t.Fatalf("before the raise: %v", got)
		}
		_, latched, err := store.Latched(t.Context(), rollout.NewLatchKey("data-eng", "svc-etl", "w1"))
		return err == nil && latched
	})
	set(t, redis.URL(), "data-eng", 100)
	g.reaches("data-eng", 100)

	g.enforces()
	post := g.send(etl(addTask(s.enforced, "LoadUsers")))
	if post.status != 200 || post.header.Get("Crossfade-Reason") != "legacy_refused" {
		t.Errorf("a worker at 100%%: %v", post)
	}
	refusal(t, post, "legacy_refused", true)
	for _, said := range []string{`"team":"data-eng"`, `"account":"svc-etl"`, "data-eng is at 100%. The password of svc-etl was correct."} {
		if !strings.Contains(post.body, said) {
			t.Errorf("the refusal does not say %q: %s", said, post.body)
		}
	}
	get := g.send(etl(pages()))
	if get.status != 401 {
		t.Errorf("a page at 100%%: %v", get)
	}
	refusal(t, get, "legacy_refused", false)
	if challenges := get.header.Values("WWW-Authenticate"); len(challenges) != 1 || !strings.HasPrefix(challenges[0], "Bearer ") {
		t.Errorf("challenges %q: nothing but Bearer helps here", challenges)
	}
	honest := etl(addTask("w3", "LoadUsers"))
	honest.header = http.Header{"Crossfade-Abort": {"off"}}
	if got := g.send(honest); got.status != 401 {
		t.Errorf("a client that asked for honest statuses: %v", got)
	}

	if got := g.send(etl(ping("w1"))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("a run that was under way before the raise: %v", got)
	}
	withToken := etl(addTask("w4", "LoadUsers"))
	withToken.companion = s.token("svc-etl", audience)
	if got := g.send(withToken); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("with a good companion at 100%%: %v", got)
	}
	withToken.companion = s.token("svc-etl", "api://finance")
	if got := g.send(withToken); got.header.Get("Crossfade-Reason") != "aud_mismatch" {
		t.Errorf("with a companion for someone else at 100%%: %v", got)
	}
	if got := g.send(search(addTask("w5", "LoadUsers"))); got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("another team: %v", got)
	}

	set(t, redis.URL(), "data-eng", 0)
	g.reaches("data-eng", 0)
	if got := g.send(etl(ping(s.enforced))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("lowering does not free the refused run: %v", got)
	}
	if got := g.send(etl(pages())); got.status != 200 {
		t.Errorf("a page after the lowering: %v", got)
	}
}
