package redisstore_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
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

func FuzzStarted(f *testing.F) {
	for _, text := range []string{
		`{"task":"Load_1","family":"Load","worker":"w1","at":"2030-01-02T03:04:05.678Z","by":{"principal":"p","team":"t","percent":25}}`,
		`{"task":"b","batch":["x","y"],"parameters":[{"name":"n","value":"v"},{"name":"m"}],"later":{"field":1}}`,
		`{"at":"0000-01-01T00:00:00+01:00"}`, `{"at":"9999-12-31T23:59:59-01:00"}`, `{"task":1}`, `{"by":null}`, `null`, `[]`, ``,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := redisstore.ParseStarted(text)
		if err != nil {
			return
		}
		written, err := json.Marshal(got)
		if err != nil {
			t.Fatalf("%q is read as %+v, which cannot be written: %v", text, got, err)
		}
		again, err := redisstore.ParseStarted(string(written))
		if diff := cmp.Diff(got, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%q, written and read again: %v (-first +second):\n%s", text, err, diff)
		}
	})
}

func FuzzOwner(f *testing.F) {
	f.Add("svc-etl", "data-eng", "1", "1900000000000")
	f.Add("", "", "", "")
	f.Add("p", "t", "2", "-1")
	f.Fuzz(func(t *testing.T, principal, team, token, seen string) {
		o, err := redisstore.ParseOwner([]any{principal, team, token, seen})
		if err == nil && (o.Principal != principal || string(o.Team) != team || o.Token != (token == "1") || o.Seen.UnixMilli() < 0 && !o.Seen.IsZero()) {
			t.Errorf("%q %q %q %q is read as %+v", principal, team, token, seen, o)
		}
		if _, err := redisstore.ParseOwner([]any{principal, team, nil, seen}); err == nil {
			t.Error("a row without a field is read")
		}
	})
}

// FuzzEvidence reads what stands in the keys of the evidence, which others may
// have written.
func FuzzEvidence(f *testing.F) {
	f.Add("v:match_allow::client", "3", "0123456789abcdef0123456789abcdef", `{"a":"svc","p":"Load","g":2,"f":1,"l":2}`, "1 2 3 expired 4 5", "3:svcLoad")
	f.Add("v:a:b:c", "1", "0123456789abcdef0123456789abcdef", `{"a":"svc","c":"ab12","d":"x","e":3,"k":-4,"observed":true}`, "1 2 3 expired", "0:")
	f.Add("s:oidc", "1", "0123456789abcdef0123456789abcdef", `{"a":"svc","at":5049217656217,"l":660041,"w":-1,"x":0,"y":1,"e":0,"k":3,"s":"lterbo?"}`, "0 0 0  0 0", "1:ab")
	f.Add("unkept", "-1", "", `[]`, "  0 ", "99:x")
	f.Add("seq:a", "x", "zz", `{"g":200}`, "1 2 3", ":")
	f.Fuzz(func(t *testing.T, field, count, id, run, use, member string) {
		d := evidence.Daily{Counts: map[evidence.Count]int64{}, Schemes: map[identity.Scheme]int64{}}
		_ = redisstore.AddCount(&d, field, count)
		if _, r, err := redisstore.ParseRun(id, run); err == nil && int(r.Grade) >= len(evidence.Grades()) {
			t.Errorf("grade %d", r.Grade)
		}
		_, _ = redisstore.ParseUse(use)
		if family, ok := redisstore.ParseFamily(member); ok {
			again, ok := redisstore.ParseFamily(redisstore.FamilyMember(family))
			if !ok || again != family {
				t.Errorf("%q is %v, and written and read again %v", member, family, again)
			}
		}
	})
}

func FuzzRefusal(f *testing.F) {
	for _, field := range []string{"w::expired:3:svcLoad", "w:ra:action_denied:0:", "w:r:x:9:svc", "w:::1:a", "seq:a", "w", ""} {
		f.Add(field)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got, err := redisstore.ParseRefusal(field)
		if err != nil {
			return
		}
		again, err := redisstore.ParseRefusal(redisstore.RefusalField(got))
		if err != nil || again != got {
			t.Errorf("%q is read as %+v, and that as %+v, %v", field, got, again, err)
		}
	})
}
