package redisstore_test

import (
	"net/url"
	"strings"
	"testing"

	"crossfade/rollout/redisstore"
)

func FuzzURL(f *testing.F) {
	for _, u := range []string{
		"redis://localhost", "rediss://user:secret@host:6379/1", "redis://a?addr=b:1&addr=c:2", "unix:///tmp/s?db=2",
		"redis://a?master_name=m", "redis://:sec/ret@h", "redis://[::1", "redis://a?cluster=true", "://", "redis://h/%zz",
	} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		s, err := redisstore.New(redisstore.Options{URL: raw})
		if err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		u, parseErr := url.Parse(raw)
		if parseErr != nil || u.User == nil {
			return
		}
		if password, _ := u.User.Password(); len(password) > 8 && strings.Contains(err.Error(), password) {
			t.Errorf("the error shows the password: %v", err)
		}
	})
}

func FuzzLatch(f *testing.F) {
	for _, value := range []string{"1|1|3|1900000000000|Load", "1|0|0|0|", "2|1|1|1|x", "1|x|1|1|", "1|1|-1|1|", "1|1", ""} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		l, err := redisstore.ParseLatch(value)
		if err == nil && (l.Revision < 0 || !strings.HasSuffix(value, "|"+l.Pipeline)) {
			t.Errorf("%q is read as %+v", value, l)
		}
	})
}
