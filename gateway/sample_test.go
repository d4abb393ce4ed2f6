package gateway_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

// breaks reports whether a verdict makes a run one that does not do.
func breaks(v shadow.Verdict) bool {
	return slices.Contains([]shadow.Verdict{shadow.WouldBreak, shadow.NoToken, shadow.WouldOpen, shadow.IdentityDrift}, v)
}

// companion is a password of a role with a token beside it.
func companion(role, token string) []string { return append(pass(role), "Crossfade-Token", token) }

// sampled is how a reason comes to break a run, and what its sample says; or why it
// never does.
type sampled struct {
	ask   func(*testing.T, *tasksStage) *gateway.Event
	want  string
	never string
}

// asks is one call.
func asks(method, arguments string, headers ...string) func(*testing.T, *tasksStage) *gateway.Event {
	return func(t *testing.T, s *tasksStage) *gateway.Event {
		_, _, ev := s.call(t, method, arguments, headers...)
		return ev
	}
}

// samples has a row for each reason but those of a token that is judged by itself,
// which are the verifier's, and those that are indeterminate.
var samples = map[identity.Reason]sampled{
	identity.TokenAbsent: {ask: asks("ping", `{"worker":"w"}`, pass("runner")...), want: "a password alone: no token in Crossfade-Token"},
	identity.ExpiredMidRun: {
		ask: func(t *testing.T, s *tasksStage) *gateway.Event {
			s.call(t, "ping", `{"worker":"w"}`, companion("runner", "runner.token.sig")...)
			_, _, ev := s.call(t, "ping", `{"worker":"w"}`, companion("runner", "runner.expired.sig")...)
			return ev
		},
		want: "the run began with a good token and sends one that has expired: it expired a minute ago",
	},
	identity.PrincipalMismatch: {
		ask:  asks("task_list", `{}`, companion("operator", "peer.token.sig")...),
		want: "static credential and token are of two accounts: one of team data-eng, one of team billing",
	},
	identity.TeamMismatch: {
		ask: func(t *testing.T, s *tasksStage) *gateway.Event {
			s.tokens.judgements["moved.token.sig"] = token(identity.Principal{Name: "svc-operator", Team: "billing", Roles: []identity.Role{"operator"}, Mapped: true})
			_, _, ev := s.call(t, "task_list", `{}`, companion("operator", "moved.token.sig")...)
			return ev
		},
		want: "the static credential is of team data-eng, the token of team billing",
	},
	identity.PrincipalUnmapped: {
		ask: func(t *testing.T, s *tasksStage) *gateway.Event {
			a := token(identity.Principal{Name: "oidc:0oa1b2c3@idp.example", Team: "data-eng", Roles: []identity.Role{"operator"}})
			a.Token.Issuer = "https://idp.example"
			s.tokens.judgements["nobody.mapped.sig"] = a
			_, _, ev := s.call(t, "task_list", `{}`, companion("operator", "nobody.mapped.sig")...)
			return ev
		},
		want: "the token of issuer https://idp.example is good, and no entry names its subject; one names the static credential",
	},
	identity.RoleMissing: {
		ask:  asks("task_list", `{}`, companion("operator", "nobody.token.sig")...),
		want: "needs view; of its role nobody none is configured",
	},
	identity.ActionDenied: {
		ask:  asks("add_task", fmt.Sprintf(everyArgument, "ExtractUsers_1", "ExtractUsers", "w"), companion("runner", "viewer.token.sig")...),
		want: "needs execute on task family ExtractUsers; its role viewer: view only",
	},
	identity.TaskFamilyDenied: {
		ask:  asks("add_task", fmt.Sprintf(everyArgument, "LoadUsers_1", "LoadUsers", "w"), companion("operator", "runner.token.sig")...),
		want: "needs execute on task family LoadUsers; its role runner: Extract*, Load",
	},
	identity.TaskUnknown: {
		ask:  asks("set_task_status_message", `{"task_id":"Nothing_1"}`, companion("operator", "runner.token.sig")...),
		want: "needs execute on a task that was never registered, so its family is not known; its roles allow Extract*, Load",
	},
	identity.WorkerMismatch: {
		ask: func(t *testing.T, s *tasksStage) *gateway.Event {
			s.call(t, "ping", `{"worker":"w"}`, bearer("operator")...)
			_, _, ev := s.call(t, "ping", `{"worker":"w"}`, companion("runner", "runner.token.sig")...)
			return ev
		},
		want: "the worker, or the task, is another account's",
	},
	identity.SchemeUnsupported:   {ask: asks("ping", `{"worker":"w"}`, "Authorization", "Digest x"), never: "no credential is looked at, so it is nobody's run"},
	identity.MultipleCredentials: {ask: asks("ping", `{"worker":"w"}`, append(pass("runner"), pass("operator")...)...), never: "no credential is looked at, so it is nobody's run"},
	identity.TokenInQuery:        {never: "no credential is looked at, so it is nobody's run"},
	identity.LegacyUnknown:       {ask: asks("ping", `{"worker":"w"}`, "Authorization", basic("svc-runner", "guess")), never: "whose secret is wrong is nobody, and has no run"},
	identity.LegacyExpired:       {ask: asks("ping", `{"worker":"w"}`, "Authorization", basic("svc-etl", "expired-pass")), never: "a credential that is not in force makes no run"},
	identity.LegacyRevoked:       {never: "a credential that is not in force makes no run"},
	identity.LegacyRefused: {
		ask: func(t *testing.T, s *tasksStage) *gateway.Event {
			_, _, ev := s.call(t, "ping", `{"worker":"enforced"}`, pass("runner")...)
			if ev.Sample != "a password alone: no token in Crossfade-Token" || ev.Shadow.Reason != identity.TokenAbsent {
				t.Errorf("a refused password: %+v, %q", ev.Shadow, ev.Sample)
			}
			return ev
		},
		never: "the run is one without a token: token_absent says what it lacks",
	},
	identity.LegacyRetired: {never: "the run is one without a token: token_absent says what it lacks"},
	identity.RPCAmbiguous:  {ask: asks("ping", `{"worker":`, pass("runner")...), never: "it is about the request, whatever credential it has"},
	identity.RPCUnknown:    {never: "it is about the request, whatever credential it has"},
	identity.CrossSite:     {never: "it is about the request, whatever credential it has"},
	identity.BodyOversize:  {never: "it is about the request, whatever credential it has"},
	identity.Throttled:     {never: "it is about the request, whatever credential it has"},
}

// sampleStage has runs named "enforced" that must use OIDC.
func sampleStage(t *testing.T) *tasksStage {
	return newTasksStage(t, func(s *tasksStage) {
		s.tokens.judgements["runner.expired.sig"].Sample = "it expired a minute ago"
		s.Rollout = ramp(func(run rollout.Run, _ bool) rollout.Enforcement {
			return rollout.Enforcement{Known: true, Enforced: run.ID == "enforced", Percent: 50}
		})
	})
}

// TestEveryReasonThatBreaksARunHasASample is over the closed list: each reason has a
// row, or is the verifier's, or says nothing about the token.
func TestEveryReasonThatBreaksARunHasASample(t *testing.T) {
	t.Parallel()
	for _, info := range identity.Reasons() {
		reason := info.Reason
		row, special := samples[reason]
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			switch {
			case info.Indeterminate:
				if special {
					t.Fatal("it is never a mismatch")
				}
			case !special:
				s := sampleStage(t)
				for sample, want := range map[string]string{"what is wrong": "what is wrong", "": strings.TrimSuffix(info.Means, ".")} {
					a := identity.Reject(`the operator's sentence, about "0oa1b2c3"`, reason)
					a.Sample = sample
					s.tokens.judgements["wrong.token.sig"] = a
					_, _, ev := s.call(t, "ping", `{"worker":"w"}`, companion("runner", "wrong.token.sig")...)
					if ev.Shadow.Verdict != shadow.WouldBreak || ev.Shadow.Reason != reason || ev.Sample != want {
						t.Errorf("beside a password: %+v, %q, want %q", ev.Shadow, ev.Sample, want)
					}
					_, _, ev = s.call(t, "ping", `{"worker":"enforced"}`, companion("runner", "wrong.token.sig")...)
					if ev.Decision.Outcome != gateway.Refused || ev.Decision.Reason != reason || ev.Sample != want {
						t.Errorf("in an enforced run: %+v, %q, want %q", ev.Decision, ev.Sample, want)
					}
					_, _, ev = s.call(t, "ping", `{"worker":"w2"}`, "Authorization", "Bearer wrong.token.sig")
					if ev.Decision.Reason != reason || ev.Sample != want {
						t.Errorf("alone: %+v, %q, want %q", ev.Decision, ev.Sample, want)
					}
				}
			case row.never != "":
				if row.ask == nil {
					return
				}
				if ev := row.ask(t, sampleStage(t)); breaks(ev.Shadow.Verdict) && ev.Shadow.Reason == reason {
					t.Errorf("it breaks a run, though %s: %+v", row.never, ev.Shadow)
				}
			default:
				ev := row.ask(t, sampleStage(t))
				if !breaks(ev.Shadow.Verdict) || ev.Shadow.Reason != reason || ev.Sample != row.want {
					t.Errorf("%+v, %q, want %q", ev.Shadow, ev.Sample, row.want)
				}
			}
		})
	}
}

func TestSamplesOfTheSameReasonTellWhichOfTwoThingsIsWrong(t *testing.T) {
	t.Parallel()
	few := func(s *tasksStage) {
		a := token(identity.Principal{Name: "svc-operator", Team: "data-eng", Roles: []identity.Role{"viewer"}, Mapped: true})
		s.tokens.judgements["few.token.sig"] = a
		s.tokens.judgements["same-team.token.sig"] = token(identity.Principal{Name: "svc-two", Team: "data-eng", Roles: []identity.Role{"operator"}, Mapped: true})
		s.keys["shared-pass"] = &identity.Authentication{
			Status: identity.StatusVerified, Principal: identity.Principal{Name: "cron", Team: identity.Unassigned, Roles: []identity.Role{"operator"}, Mapped: true},
			MayBe: []string{"ann", "bob"}, CredentialID: "basic:cron",
		}
	}
	for name, test := range map[string]struct {
		verdict shadow.Verdict
		method  string
		args    string
		headers []string
		want    string
	}{
		"fewer roles by token": {
			shadow.IdentityDrift, "task_list", `{}`, companion("operator", "few.token.sig"),
			"by static credential the roles are operator, by token viewer",
		},
		"another account of the team": {
			shadow.IdentityDrift, "task_list", `{}`, companion("operator", "same-team.token.sig"), "static credential and token are of two accounts of the team",
		},
		"none that a shared credential turns into": {
			shadow.IdentityDrift, "task_list", `{}`,
			[]string{"Authorization", basic("cron", "shared-pass"), "Crossfade-Token", "operator.token.sig"},
			"the token is of an account that is none of the 2 into which the shared static credential may turn",
		},
		"a token that may do more": {
			shadow.WouldOpen, "add_task", fmt.Sprintf(everyArgument, "Export_1", "Export", "w"), companion("runner", "operator.token.sig"),
			"by static credential it is denied, by token not: needs execute on task family Export; its role runner: Extract*, Load",
		},
		"a call that no role allows": {
			shadow.WouldBreak, "no_such_call", `{}`, companion("operator", "operator.token.sig"), "the call is none that the profile knows, which no role allows",
		},
		"a dependency that the token may not execute": {
			shadow.WouldBreak, "add_task",
			`{"worker":"w","task_id":"ExtractUsers_1_2","family":"ExtractUsers","status":"PENDING","deps":["Secret_1_2"]}`, companion("operator", "runner.token.sig"),
			"needs execute on task family ExtractUsers and on those that the task depends on, and one of them is another; its roles allow Extract*, Load",
		},
		"an API key alone": {shadow.NoToken, "ping", `{"worker":"w"}`, []string{"X-Api-Key", "k1"}, "an API key alone: no token in Authorization or Crossfade-Token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTasksStage(t, few)
			if _, _, ev := s.call(t, test.method, test.args, test.headers...); ev.Shadow.Verdict != test.verdict || ev.Sample != test.want {
				t.Errorf("%+v, %q, want %s, %q", ev.Shadow, ev.Sample, test.verdict, test.want)
			}
		})
	}
}

// TestNothingOfARequestIsInASample: no header, no credential and nothing of a body
// but the name of a task family.
func TestNothingOfARequestIsInASample(t *testing.T) {
	t.Parallel()
	const mark = "Zq7mark"
	s := sampleStage(t)
	good := "runner.token.sig"
	rapid.Check(t, func(rt *rapid.T) {
		text := func(label string) string {
			return rapid.SampledFrom([]string{mark, mark + "@acme.dev", "x " + mark, strings.Repeat(mark, 40)}).Draw(rt, label)
		}
		var headers []string
		switch rapid.IntRange(0, 5).Draw(rt, "credential") {
		case 0:
			headers = []string{"Authorization", basic(text("user"), text("password"))}
		case 1:
			headers = companion("runner", text("token"))
		case 2:
			headers = []string{"Authorization", "Bearer " + mark + ".b.c"}
		case 3:
			headers = companion(rapid.SampledFrom([]string{"runner", "operator"}).Draw(rt, "whose"), good)
		case 4:
			headers = []string{"X-Api-Key", text("key"), "Crossfade-Token", text("token")}
		case 5:
			headers = pass("runner")
		}
		for _, name := range []string{"User-Agent", "Crossfade-Run", "X-Forwarded-User", "X-Forwarded-For", "Cookie", "Referer"} {
			if rapid.Bool().Draw(rt, name) {
				headers = append(headers, name, text("header"))
			}
		}
		family := rapid.SampledFrom([]string{"Load", "Secret", mark + " with a blank", mark + "@x", mark + "=1", strings.Repeat(mark, 20), "<" + mark + ">"}).Draw(rt, "family")
		args := fmt.Sprintf(`{"worker":%q,"task_id":%q,"family":%q,"status":"PENDING","params":{%q:%q}}`, text("worker"), mark+"_1_2", family, mark, text("parameter"))
		method := rapid.SampledFrom([]string{"add_task", "ping", "set_task_status_message", mark}).Draw(rt, "method")
		_, _, ev := s.call(t, method, args, headers...)
		if strings.Contains(ev.Sample, mark) || len(ev.Sample) > identity.MaxSample || strings.ContainsFunc(ev.Sample, func(r rune) bool { return !unicode.IsPrint(r) }) {
			rt.Fatalf("%+v: %q", ev.Shadow, ev.Sample)
		}
		if breaks(ev.Shadow.Verdict) && ev.Sample == "" {
			rt.Fatalf("%+v without a sample", ev.Shadow)
		}
	})
}

func TestACleanRequestAndOneWithoutATokenCostNoSample(t *testing.T) {
	s := newStage("http://127.0.0.1:1")
	s.Policy = rules(t)
	h := s.handler(t).(*gateway.Handler)
	legacy, good := verified(etl()), token(etl())
	for _, r := range []shadow.Result{{Verdict: shadow.MatchAllow}, {Verdict: shadow.NotEvaluated}, {Verdict: shadow.NoToken, Reason: identity.TokenAbsent}} {
		ev := &gateway.Event{Legacy: legacy, Token: good, Presented: gateway.PresentedSchemes{Legacy: identity.SchemeBasic}}
		if n := testing.AllocsPerRun(100, func() { _ = gateway.SampleOf(h, ev, &ev.Call, good, r) }); n != 0 {
			t.Errorf("%s: %g allocations", r.Verdict, n)
		}
	}
}
