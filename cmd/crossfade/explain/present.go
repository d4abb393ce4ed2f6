package explain

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/policy"
	"crossfade/legacy"
	"crossfade/rollout"
)

// Present is what requests are decided by today.
type Present struct {
	Now           time.Time
	Configuration string // its hash
	Mode          gateway.Mode
	RolesCount    bool // for legacy-governed requests too
	// HTTP tells the profile in which a run is its principal.
	HTTP       bool
	Stickiness rollout.Stickiness
	Directory  *identity.Directory
	Policy     *policy.Policy
	// Credentials are all static ones by their name; nil when no file of any is
	// configured.
	Credentials map[string]legacy.Info
	// Rollouts are the teams that were ever changed; nil when they are not known,
	// and NoRollouts says why.
	Rollouts   map[identity.Team]rollout.State
	NoRollouts string
}

// bucket is where the request's key lies, nil when it is not known.
func (p *Present) bucket(u *audit.Use) *Bucket {
	if u.Principal == "" || u.Team == "" || u.Team == string(identity.Unassigned) {
		return nil
	}
	key, shown := u.Principal, u.Principal
	switch {
	case p.HTTP, p.Stickiness == rollout.StickPrincipal:
	case p.Stickiness == rollout.StickRun && u.Run != "":
		key, shown = key+"/"+u.Run, shown+" / "+u.Run
	case p.Stickiness == rollout.StickPipeline && u.Pipeline != "":
		key, shown = key+"/"+u.Pipeline, shown+" / "+u.Pipeline
	default:
		return nil
	}
	return &Bucket{Key: shown, From: int(rollout.Threshold(identity.Team(u.Team), key))}
}

// account is whose a credential is today.
type account struct {
	identity.Principal
	// legacy is what is known of the static credential without its secret.
	legacy gateway.Judged
}

// now says what the same request would get, and what nobody can say.
func (p *Present) now(u *audit.Use) (now, unknown []string) {
	say := func(format string, args ...any) { now = append(now, fmt.Sprintf(format, args...)) }
	if u.Configuration != "" && u.Configuration != p.Configuration {
		say("The configuration is another one than then (%s, now %s).", short(u.Configuration), short(p.Configuration))
	}
	if u.Principal == "" {
		return now, append(unknown, "What the same request would get: it was nobody's, and the credential that it presented is not kept.")
	}
	if u.Scheme == identity.SchemeOIDC.String() {
		return p.byToken(u, now)
	}
	static := u.Credential
	who, text := p.static(static)
	say("%s", text)
	unknown = append(unknown, "Whether the password, key or token that was sent is still the right one: none is kept.")
	if who.legacy.Status != identity.StatusVerified {
		d := gateway.Decide(gateway.Facts{Mode: p.Mode, RolesCount: p.RolesCount, Legacy: who.legacy})
		say("So the static credential alone would be %s.", outcome(d))
		return now, unknown
	}
	denied := p.rights(u, who.Principal, say, &unknown)
	who.legacy.Denied = denied
	cases, state := p.percentage(u, who.Principal, say, &unknown)
	for _, c := range cases {
		f := gateway.Facts{
			Mode: p.Mode, RolesCount: p.RolesCount, Legacy: who.legacy, Enforced: c.enforced,
			Retired: state.Retired || p.retired(static), RolloutUnknown: false,
		}
		alone := gateway.Decide(f)
		f.Companion, f.Token = true, gateway.Judged{Status: identity.StatusVerified, Denied: denied}
		if both := gateway.Decide(f); both.Outcome == alone.Outcome && both.Reason == alone.Reason {
			say("%s the right static credential would be %s, with or without a good token of the same account beside it.", c.provided, outcome(alone))
		} else {
			say("%s the right static credential alone would be %s; with a good token of the same account beside it, %s.",
				c.provided, outcome(alone), outcome(both))
		}
	}
	if u.Candidate != nil {
		unknown = append(unknown, "Whether the token that was sent would be good today: it is not kept. `crossfade token inspect` judges one that you have.")
	}
	return now, unknown
}

// byToken is now for a request that a token governed.
func (p *Present) byToken(u *audit.Use, now []string) (_, unknown []string) {
	say := func(format string, args ...any) { now = append(now, fmt.Sprintf(format, args...)) }
	unknown = append(unknown, "Whether the token would be good today: it is not kept, and most have expired by now. `crossfade token inspect` judges one that you have.")
	if u.Subject == "" {
		return now, append(unknown, "Whose the token is today: its subject was not verified.")
	}
	principal, reason := p.Directory.Token(identity.TokenIdentity{Issuer: u.Issuer, Subject: u.Subject})
	if !principal.Mapped {
		say("No entry names the subject %s alone (%s).", u.Subject, words(reason))
		return now, append(unknown, "Whether another claim of the token names an account, a team or roles: claims are not kept.")
	}
	say("A good token of the subject %s is account %s of team %s.", u.Subject, principal.Name, principal.Team)
	if len(principal.Roles) == 0 && p.Policy != nil {
		return now, append(unknown, "Which roles the claims of the token would give: they are not kept.")
	}
	denied := p.rights(u, principal, say, &unknown)
	d := gateway.Decide(gateway.Facts{Mode: p.Mode, RolesCount: p.RolesCount, Token: gateway.Judged{Status: identity.StatusVerified, Denied: denied}})
	say("With such a token it would be %s, whatever the percentage.", outcome(d))
	return now, unknown
}

// static says whose a static credential is today.
func (p *Present) static(id string) (account, string) {
	info, there := p.Credentials[id]
	gone := func(reason identity.Reason, format string, args ...any) (account, string) {
		return account{legacy: gateway.Judged{Status: identity.StatusRejected, Reason: reason}}, fmt.Sprintf(format, args...)
	}
	switch {
	case id == "" || !there:
		return gone(identity.LegacyUnknown, "No configured file holds the static credential %s any more.", id)
	case info.Revoked:
		return gone(identity.LegacyRevoked, "The static credential %s is revoked.", id)
	case !info.Expires.IsZero() && !p.Now.Before(info.Expires):
		return gone(identity.LegacyExpired, "The static credential %s expired on %s.", id, info.Expires.UTC().Format(time.RFC3339))
	}
	text := fmt.Sprintf("The static credential %s is of account %s, team %s.", id, info.Principal.Name, info.Principal.Team)
	if !info.Principal.Mapped {
		text += " No entry names its owner."
	}
	return account{info.Principal, gateway.Judged{Status: identity.StatusVerified}}, text
}

// rights says whether the account's roles allow the request, and returns why not.
func (p *Present) rights(u *audit.Use, who identity.Principal, say func(string, ...any), unknown *[]string) identity.Reason {
	if p.Policy == nil {
		say("No roles are configured, so %s may do everything.", who.Name)
		return ""
	}
	r := policy.Request{Action: identity.Action(u.Action), Family: u.Family}
	about := cmp.Or(u.Action, "a call that is not known")
	switch _, families, known := luigi.Procedure(u.RPC); {
	case u.Family != "":
		about += " on " + u.Family
	case known && !families && r.Action == identity.ActionAdmin:
		r.EveryFamily = true // a call for administrators that is about no task is about all
		about += " on every task family"
	case known && !families, p.HTTP:
	default:
		*unknown = append(*unknown, "Which task family the right must be to: the line names none.")
	}
	denied := p.Policy.Denies(who.Roles, r)
	roles := make([]string, len(who.Roles))
	for i, r := range who.Roles {
		roles[i] = string(r)
	}
	counts := ""
	if !p.RolesCount && u.Scheme != identity.SchemeOIDC.String() {
		counts = " (with authorization: shadow that is a verdict only, for a static credential)"
	}
	if denied == "" {
		say("Its roles [%s] allow %s.", strings.Join(roles, ", "), about)
	} else {
		say("Its roles [%s] do not allow %s: %s%s.", strings.Join(roles, ", "), about, denied, counts)
	}
	return denied
}

// possibility is one of the answers that a percentage can give.
type possibility struct {
	enforced bool
	provided string // how the sentence about it begins
}

// percentage says whether a new run of the same key must use OIDC.
func (p *Present) percentage(u *audit.Use, who identity.Principal, say func(string, ...any), unknown *[]string) ([]possibility, rollout.State) {
	const so = "So"
	both := []possibility{{false, "If the run need not use OIDC,"}, {true, "If it must,"}}
	if p.Rollouts == nil {
		*unknown = append(*unknown, "At which percentage the team is: "+p.NoRollouts+".")
		return both, rollout.State{}
	}
	state := p.Rollouts[who.Team]
	percent := state.Percent
	if b, open := state.Brownout(p.Now); open && b.Percent > percent {
		say("A brownout raises team %s from %s%% to %s%% until %s.", who.Team, percent, b.Percent, b.Until.UTC().Format(time.RFC3339))
		percent = b.Percent
	}
	if p.Mode == gateway.Observe {
		say("Team %s is at %s%%, and mode observe enforces none of it.", who.Team, percent)
		return []possibility{{false, so}}, state
	}
	if u.Run != "" && !p.HTTP && !state.Retired {
		*unknown = append(*unknown, "Whether the run is still alive: one that began before a raise keeps what it began with.")
	}
	today := *u
	today.Principal, today.Team = who.Name, string(who.Team)
	bucket := p.bucket(&today)
	switch {
	case state.Retired:
		say("Team %s has retired its static credentials.", who.Team)
		return []possibility{{true, so}}, state
	case percent == 0:
		say("Team %s is at 0%%: no run must use OIDC.", who.Team)
		return []possibility{{false, so}}, state
	case percent >= rollout.Full:
		say("Team %s is at 100%%: every run must use OIDC.", who.Team)
		return []possibility{{true, so}}, state
	case state.Algorithm != rollout.Algorithm:
		say("Team %s is at %s%%.", who.Team, percent)
		*unknown = append(*unknown, "Whether that selects the run: the team's buckets are of a version that this program does not know.")
		return both, state
	case bucket == nil:
		say("Team %s is at %s%%.", who.Team, percent)
		*unknown = append(*unknown, "Whether that selects the run: the line does not name what it is selected by.")
		return both, state
	default:
		selected := int(percent) >= bucket.From
		verb := "does not select"
		if selected {
			verb = "selects"
		}
		say("Team %s is at %s%%, which %s %s (selected from %d%% on).", who.Team, percent, verb, bucket.Key, bucket.From)
		return []possibility{{selected, so}}, state
	}
}

// retired reports whether a team took the credential with it when it retired.
func (p *Present) retired(id string) bool {
	for _, s := range p.Rollouts {
		for _, c := range s.Credentials {
			if s.Retired && c == id {
				return true
			}
		}
	}
	return false
}

// outcome is a decision in words.
func outcome(d gateway.Decision) string {
	text := strings.ReplaceAll(string(d.Outcome), "_", " ")
	switch d.Outcome {
	case gateway.WouldRefuse:
		text = "forwarded (mode enforce would refuse it)"
	case gateway.Unavailable:
		text = "answered 503"
	}
	if d.Reason != "" {
		text += ", " + string(d.Reason)
	}
	return text
}

func words(r identity.Reason) string {
	if r == "" {
		return "it is unassigned"
	}
	return string(r)
}

// short is the beginning of a hash, enough to tell two apart.
func short(hash string) string { return hash[:min(len(hash), 12)] }
