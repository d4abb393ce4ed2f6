package main

import (
	"net/url"
	"strings"
	"testing"

	"crossfade/rollout/rollouttest"
)

// TestAChangeThatRedisCannotTakeIsRefused proves that a change is refused with
// what is wrong and what to do, and nothing of it is kept.
func TestAChangeThatRedisCannotTakeIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		// broken returns the URL of a Redis that cannot take a change, and the
		// server to look at afterwards, nil for none.
		broken func(*testing.T) (string, *rollouttest.Redis)
		says   []string
	}{
		"it is away": {func(t *testing.T) (string, *rollouttest.Redis) {
			r := rollouttest.StartRedis(t)
			r.Stop()
			return r.URL(), nil
		}, []string{"refused"}},
		"it hangs": {func(t *testing.T) (string, *rollouttest.Redis) {
			r := rollouttest.StartRedis(t)
			r.Pause(t)
			return r.URL(), nil
		}, []string{"timeout"}},
		"it is a replica": {func(t *testing.T) (string, *rollouttest.Redis) {
			master := rollouttest.StartRedis(t)
			run(t, "rollout", "set", "data-eng", "25", "--redis="+master.URL()).want(t, exitOK)
			r := rollouttest.StartReplica(t, master)
			return r.URL(), r
		}, []string{"READONLY", "name its master"}},
		"it is full": {func(t *testing.T) (string, *rollouttest.Redis) {
			r := rollouttest.StartRedis(t)
			run(t, "rollout", "set", "data-eng", "25", "--redis="+r.URL()).want(t, exitOK)
			r.Do(t, "CONFIG", "SET", "maxmemory", "1")
			return r.URL(), r
		}, []string{"OOM", "maxmemory"}},
		"the password is wrong": {func(t *testing.T) (string, *rollouttest.Redis) {
			r := rollouttest.StartRedis(t, "--requirepass", "right-pass")
			return strings.Replace(r.URL(), "redis://", "redis://:wrong-pass@", 1), nil
		}, []string{"WRONGPASS", "look at the user and the password"}},
		"there is no password": {func(t *testing.T) (string, *rollouttest.Redis) {
			return rollouttest.StartRedis(t, "--requirepass", "right-pass").URL(), nil
		}, []string{"NOAUTH", "asks for a password"}},
		"it speaks TLS and the URL does not": {func(t *testing.T) (string, *rollouttest.Redis) {
			r, _ := rollouttest.StartTLS(t)
			return strings.Replace(r.URL(), "rediss://", "redis://", 1), nil
		}, []string{"use rediss://"}},
		"the URL speaks TLS and it does not": {func(t *testing.T) (string, *rollouttest.Redis) {
			return strings.Replace(rollouttest.StartRedis(t).URL(), "redis://", "rediss://", 1), nil
		}, []string{"does not answer the TLS handshake", "use redis://"}},
		"nobody trusts its certificate": {func(t *testing.T) (string, *rollouttest.Redis) {
			r, _ := rollouttest.StartTLS(t)
			return r.URL(), nil
		}, []string{"redis.ca_file"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, server := test.broken(t)
			got := run(t, "rollout", "set", "data-eng", "50", "--redis="+address).want(t, exitStore, test.says...)
			if got.stdout != "" {
				t.Errorf("a result is printed: %v", got)
			}
			if u, err := url.Parse(address); err != nil {
				t.Fatal(err)
			} else if password, ok := u.User.Password(); ok && strings.Contains(got.stderr, password) {
				t.Errorf("the password shows: %v", got)
			}
			if server != nil {
				row := server.Do(t, "HMGET", "crossfade:{data-eng}:rollout", "percent", "revision")
				if entries := server.Do(t, "XLEN", "crossfade:{data-eng}:history"); row != "25\n1" || entries != "1" {
					t.Errorf("after the refused change the team is %q with %s entries, want 25 at revision 1 with 1", row, entries)
				}
			}
		})
	}
}
