package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/fleet"
)

const (
	// tokenVariable holds a token for the admin API.
	tokenVariable = "CROSSFADE_TOKEN"
	// maxAdminReply bounds what is read of an answer: a thousand entries of a
	// history, at their longest.
	maxAdminReply = 8 << 20
)

// addAdminFlags adds the flags by which rollouts are reached over the admin API.
func addAdminFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.String("admin", "", "go by the admin API of a gateway, as in http://127.0.0.1:8081, instead of Redis: who does it is proven by a token")
	f.String("token-file", "", "with --admin: the file of the token; default $"+tokenVariable+", or where `crossfade agent` would find one: "+
		"$CROSSFADE_TOKEN_FILE, a GitHub Actions job, a login")
	f.String("admin-ca", "", "with --admin https://...: a PEM file of the authorities that may have signed the gateway's certificate; default: those of the system")
	f.String("audience", "", "with --admin: the audience of a token that is asked for, as in a GitHub Actions job")
}

// adminAPI is the admin API of one gateway, as one command uses it: by one
// goroutine.
type adminAPI struct {
	base   *url.URL
	caFile string
	client *http.Client
	// token is the one in use, another returns what its source has now, and from
	// says what that is.
	token   identity.Secret
	another func(context.Context) (identity.Secret, error)
	from    tokenOrigin
}

// tokenOrigin says of a token where it is from, and how to get another.
type tokenOrigin struct{ name, again string }

// admin returns the API that --admin names; nil without the flag.
func (p *program) admin(c *cobra.Command) (*adminAPI, error) {
	flags := c.Flags()
	text, _ := flags.GetString("admin")
	file, _ := flags.GetString("token-file")
	caFile, _ := flags.GetString("admin-ca")
	if text == "" {
		if flags.Changed("admin") || file != "" || caFile != "" {
			return nil, usage("--token-file and --admin-ca go with --admin URL")
		}
		return nil, nil
	}
	if flags.Changed("redis") {
		return nil, usage("--admin and --redis are two ways to one thing: leave one out")
	}
	base, err := url.Parse(text)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, usage("--admin: give the URL of the admin listener, as in http://127.0.0.1:8081, and nothing else in it")
	}
	base.Path = strings.TrimSuffix(strings.TrimSuffix(base.Path, "/"), strings.TrimSuffix(console.Prefix, "/")) + console.Prefix
	if base.Scheme == "http" && !onThisMachine(base.Hostname()) {
		_, _ = fmt.Fprintf(p.stderr, "crossfade: the token goes to %s without TLS: use https://, or a tunnel\n", base.Host)
	}
	transport, err := adminTransport(base, caFile)
	if err != nil {
		return nil, err
	}
	a := &adminAPI{base: base, caFile: caFile, client: &http.Client{
		Transport: transport,
		// A token is for the address that was named, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       4 * storeTimeout,
	}}
	if a.another, a.from, err = p.adminTokens(c, file); err != nil {
		return nil, err
	}
	if a.token, err = a.another(c.Context()); err != nil {
		return nil, err
	}
	return a, nil
}

// adminTransport verifies the gateway by the authorities of a file, or by those
// of the system.
func adminTransport(base *url.URL, caFile string) (http.RoundTripper, error) {
	system, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the admin API is asked by net/http's own transport only")
	}
	transport := system.Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case caFile == "":
		return transport, nil
	case base.Scheme != "https":
		return nil, usage("--admin-ca is for an https:// URL: this one has no TLS")
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, usage("--admin-ca: %w", err)
	}
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, usage("--admin-ca: %s holds no PEM certificate", caFile)
	}
	return transport, nil
}

// onThisMachine reports whether a host is a loopback name.
func onThisMachine(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// adminTokens says where the tokens of a command come from.
func (p *program) adminTokens(c *cobra.Command, file string) (another func(context.Context) (identity.Secret, error), from tokenOrigin, err error) {
	if token := p.getenv(tokenVariable); file == "" && token != "" {
		secret := identity.NewSecret(strings.TrimSpace(token))
		from = tokenOrigin{"$" + tokenVariable, "put a new one into it, and mind that a one-time token ends with its gateway and is good on its machine only"}
		return func(context.Context) (identity.Secret, error) { return secret, nil }, from, nil
	}
	source, err := p.tokenSource(agentOptions{source: "auto", params: agenttoken.Params{File: file}})
	var wrong *exitError
	if errors.As(err, &wrong) {
		return nil, from, usage("no token for --admin: name its file by --token-file, put it into $%s, or run `crossfade login`; "+
			"on the gateway's own machine the one-time token that it printed at its start will do", tokenVariable)
	}
	if err != nil {
		return nil, from, err
	}
	switch variable := p.getenv(agent.TokenFileVariable); {
	case file != "":
		from = tokenOrigin{file, "write a new one into the file"}
	case variable != "":
		from = tokenOrigin{variable, "write a new one into the file, or name another by --token-file"}
	case p.getenv("ACTIONS_ID_TOKEN_REQUEST_URL") != "", p.getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "":
		from = tokenOrigin{"this machine's environment", "name the gateway's audience by --audience"}
	default:
		from = tokenOrigin{"your login", "run `crossfade login` again"}
	}
	audience, _ := c.Flags().GetString("audience")
	return func(ctx context.Context) (identity.Secret, error) {
		ctx, cancel := context.WithTimeout(ctx, 4*storeTimeout)
		defer cancel()
		token, err := source.Token(ctx, agenttoken.Request{Audience: audience})
		if err != nil {
			return identity.Secret{}, fmt.Errorf("a token for --admin: %w", err)
		}
		return token.Value, nil
	}, from, nil
}

// call asks the API and reads what it answers into result. A token that has ended
// meanwhile is replaced by what its source has now, once.
func (a *adminAPI) call(ctx context.Context, method, path string, body any, header http.Header, result any) error {
	err := a.once(ctx, method, path, body, header, result)
	var refused *adminProblem
	if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		return err
	}
	if token, wrong := a.another(ctx); wrong == nil && token.Reveal() != a.token.Reveal() {
		a.token = token
		if err = a.once(ctx, method, path, body, header, result); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			return err
		}
	}
	refused.Message = fmt.Sprintf("the token of %s is refused: %s", a.from.name, refused.Message)
	refused.Do = "To get another: " + a.from.again + ". `crossfade token inspect` says what is wrong with one."
	return refused.exit()
}

// once is call without another token.
func (a *adminAPI) once(ctx context.Context, method, path string, body any, header http.Header, result any) error {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("admin API: %w", err)
		}
		sent = bytes.NewReader(text)
	}
	to, err := a.base.Parse(path)
	if err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, method, to.String(), sent)
	if err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+a.token.Reveal())
	resp, err := a.client.Do(r)
	if err != nil {
		return a.unreached(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if a.base.Scheme == "http" && resp.StatusCode == http.StatusBadRequest && !resp.ProtoAtLeast(1, 1) {
		// What net/http's server says to plain HTTP on a TLS listener, and hangs up.
		return &exitError{exitStore, fmt.Errorf("%s speaks TLS: use https://", a.base.Host)}
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminReply))
	if err != nil {
		return away("the answer of the admin API broke off: look at the team before you try again: %w", err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusAccepted {
		if err := json.Unmarshal(text, result); err == nil {
			return nil
		}
	}
	var problem adminProblem
	if json.Unmarshal(text, &problem) != nil || problem.Reason == "" || problem.Reason == string(identity.RPCUnknown) { // that is the listener for clients
		if resp.StatusCode >= http.StatusInternalServerError { // something in front that misses it
			return away("%s answers %s, which is not the admin API of Crossfade: look at what stands in front of it, or name its admin listener by --admin", a.base.Host, resp.Status)
		}
		return fmt.Errorf("%s answers %s, which is no admin API of Crossfade: name its admin listener by --admin", a.base.Host, resp.Status)
	}
	problem.Status = resp.StatusCode
	return problem.exit()
}

// stateOf is a team of the API as the commands know it.
func stateOf(t console.Team) rollout.State {
	s := rollout.State{
		Team: t.Team, Percent: rollout.Percent(t.Percent), Previous: rollout.Percent(t.Previous), Revision: t.Revision,
		UpdatedAt: t.Updated, Retired: t.Phase == rollout.PhaseRetired,
	}
	if t.Request != nil {
		s.Request = *t.Request
	}
	if h := t.Hold; h != nil {
		s.Hold = rollout.Hold{Reason: h.Reason, Actor: h.Actor, Verified: h.Verified, At: h.At, Until: h.Until}
	}
	return s
}

// team makes one call about a team.
func (a *adminAPI) team(ctx context.Context, method string, team identity.Team, what string, body any, header http.Header) (rollout.State, error) {
	var t console.Team
	err := a.call(ctx, method, "teams/"+url.PathEscape(string(team))+what, body, header, &t)
	return stateOf(t), err
}

// states returns the teams that were ever changed, and for how many of its runs
// the percentage of each is in effect, as the gateway knows them. The error may say
// that its store is away, or not what it was.
func (a *adminAPI) states(ctx context.Context) (map[identity.Team]rollout.State, map[identity.Team]effect.Share, error) {
	var list console.Teams
	if err := a.call(ctx, http.MethodGet, "teams", nil, nil, &list); err != nil {
		return nil, nil, err
	}
	states := make(map[identity.Team]rollout.State, len(list.Teams))
	shares := make(map[identity.Team]effect.Share)
	for _, t := range list.Teams {
		if t.Revision > 0 {
			states[t.Team] = stateOf(t)
		}
		if t.InEffect != nil {
			shares[t.Team] = *t.InEffect
		}
	}
	if list.Trouble != "" {
		return states, shares, away("the gateway goes on by what it read of its store %s, since: %s", ago(time.Since(list.AsOf)), list.Trouble)
	}
	return states, shares, nil
}

// live says which gateways serve by the store of this one; "" where an older one
// does not tell.
func (a *adminAPI) live(ctx context.Context) (string, error) {
	all, now, err := a.gateways(ctx)
	var unknown *adminProblem
	if errors.As(err, &unknown) && unknown.Reason == reasonRoute {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return liveWords(all, now), nil
}

// gateways returns those that serve by the store of this one, and the time by its
// clock.
func (a *adminAPI) gateways(ctx context.Context) (all []fleet.Replica, now time.Time, err error) {
	var list console.Replicas
	if err := a.call(ctx, http.MethodGet, "replicas", nil, nil, &list); err != nil {
		return nil, now, err
	}
	for _, r := range list.Replicas {
		all = append(all, fleet.Replica{ID: r.ID, Version: r.Version, Config: r.Config, Started: r.Started, Seen: r.Seen, Regressed: r.Regressed, LateSeconds: r.LateSeconds})
	}
	return all, list.AsOf, nil
}

// history returns a team's last changes.
func (a *adminAPI) history(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error) {
	var list console.Changes
	if err := a.call(ctx, http.MethodGet, "teams/"+url.PathEscape(string(team))+"/history?limit="+strconv.Itoa(min(limit, 1000)), nil, nil, &list); err != nil {
		return nil, err
	}
	entries := make([]rollout.Entry, 0, len(list.Changes))
	for _, e := range list.Changes {
		entries = append(entries, rollout.Entry{
			Revision: e.Revision, Kind: e.Kind, At: e.At, From: rollout.Percent(e.From), To: rollout.Percent(e.To),
			Actor: e.Actor, Verified: e.Verified, Source: e.Source, Reason: e.Reason, Evidence: e.Evidence,
		})
	}
	return entries, nil
}

// reasoned is a body with nothing but a reason.
type reasoned struct {
	Reason string `json:"reason,omitempty"`
}

// setting is the body of a percentage that is set at once.
type setting struct {
	Percent int    `json:"percent"`
	Reason  string `json:"reason,omitempty"`
	Glass   string `json:"break_glass_for,omitempty"`
}

// asking is the body of a request, alone or in a plan.
type asking struct {
	Team      identity.Team      `json:"team,omitempty"`
	Percent   int                `json:"percent"`
	Reason    string             `json:"reason,omitempty"`
	Override  string             `json:"override,omitempty"`
	Digest    string             `json:"digest,omitempty"`
	Brownouts []rollout.Brownout `json:"brownouts,omitempty"`
}

func askingOf(r rollout.Request) asking {
	return asking{Percent: int(r.Percent), Reason: r.Reason, Override: r.Override, Digest: r.Digest, Brownouts: r.Brownouts}
}

// ask makes the request of a planned file, and says why it waits if it does.
func (a *adminAPI) ask(ctx context.Context, row planRow, by rollout.Setting) (s rollout.State, why string, err error) {
	var t console.Team
	err = a.call(ctx, http.MethodPost, "teams/"+url.PathEscape(string(row.Team))+"/request", askingOf(row.request(by)), nil, &t)
	return stateOf(t), t.Why, err
}

// fill asks what would become of the rows' files, and completes the rows with it.
// Raises wait for the hours of the file that was read here, too: the gateway may
// have no such file.
func (a *adminAPI) fill(ctx context.Context, rows []planRow, now time.Time) error {
	type plan struct {
		Requests []asking `json:"requests"`
	}
	ask := plan{Requests: make([]asking, 0, len(rows))}
	var asked []int // the rows that are asked about
	var retiring []int
	for i, row := range rows {
		if row.file.Retire {
			retiring = append(retiring, i)
			continue
		}
		q := askingOf(row.request(rollout.Setting{}))
		q.Team = row.file.Team
		ask.Requests, asked = append(ask.Requests, q), append(asked, i)
	}
	if err := a.fillRetiring(ctx, rows, retiring, now); err != nil {
		return err
	}
	if len(asked) == 0 {
		return nil
	}
	var got console.Plan
	if err := a.call(ctx, http.MethodPost, "plan", ask, nil, &got); err != nil {
		return err
	}
	if len(got.Steps) != len(asked) {
		return fmt.Errorf("the admin API answers %d of %d requests: its version and this one differ", len(got.Steps), len(asked))
	}
	for i, s := range got.Steps {
		f := rows[asked[i]].file
		row := planRow{
			Team: s.Team, From: s.From, To: s.To, Outcome: s.Outcome, Why: s.Why, Owner: s.Owner,
			Forecast: s.Forecast, Problem: s.Problem, Overridden: s.Overridden, Warnings: f.Warnings, file: f,
			step: rollout.Step{
				Outcome: outcomeOf(s.Outcome), From: rollout.Percent(s.From), To: rollout.Percent(s.To), Why: s.Why, Owner: s.Owner, Overridden: s.Overridden,
			},
			state: rollout.State{Team: s.Team, Percent: rollout.Percent(s.From), Revision: s.Revision},
		}
		if !s.Changes { // what is asked for is what the file says
			row.state.Request = row.request(rollout.Setting{})
			row.state.Request.At = now
		}
		if row.step.Outcome == rollout.Raise && f.Open != nil && !f.Open(now) {
			row.step.Outcome, row.Outcome = rollout.Closed, rollout.Closed.String()
			row.Keep, row.OneIn = 0, 0
			row.state.Request = row.request(rollout.Setting{}) // asks for nothing now
			row.state.Request.At = now
		}
		rows[asked[i]] = row
	}
	return nil
}

// fillRetiring completes the rows whose files ask for the end of static credentials.
// That is asked for over the admin API by no file, and keeps no other team from
// being asked about; nothing is left to ask of a team that is retired.
func (a *adminAPI) fillRetiring(ctx context.Context, rows []planRow, retiring []int, now time.Time) error {
	if len(retiring) == 0 {
		return nil
	}
	states, _, err := a.states(ctx)
	if err != nil {
		return err
	}
	for _, i := range retiring {
		row := planRow{Team: rows[i].file.Team, file: rows[i].file, state: states[rows[i].file.Team]}
		row.state.Team = row.Team
		row.step = rollout.Step{From: row.state.Percent, To: row.state.Percent}
		if !row.state.Retired {
			row.step.Outcome, row.step.Owner = rollout.Pending, identity.OwnerPlatform
			row.step.Why = fmt.Sprintf("a file retires nobody over the admin API: an operator runs `crossfade rollout retire %s --admin %s`", row.Team, a.base.Scheme+"://"+a.base.Host)
		}
		row.From, row.To = int(row.step.From), int(row.step.To)
		row.Outcome, row.Why, row.Owner = row.step.Outcome.String(), row.step.Why, row.step.Owner
		row.state.Request = row.request(rollout.Setting{}) // asks for nothing
		row.state.Request.At = now
		rows[i] = row
	}
	return nil
}

// outcomeOf is the outcome of a word; one that is not known here waits.
func outcomeOf(word string) rollout.Outcome {
	for o := rollout.Met; o <= rollout.Retire; o++ {
		if o.String() == word {
			return o
		}
	}
	return rollout.Pending
}

// retirement says whether a team may be retired.
func (a *adminAPI) retirement(ctx context.Context, team identity.Team) (r console.Retirement, err error) {
	err = a.call(ctx, http.MethodGet, "teams/"+url.PathEscape(string(team))+"/retire", nil, nil, &r)
	return r, err
}

// retire ends a team's static credentials, and returns how many those were.
func (a *adminAPI) retire(ctx context.Context, team identity.Team, reason string) (s rollout.State, ended int, err error) {
	var t console.Team
	err = a.call(ctx, http.MethodPost, "teams/"+url.PathEscape(string(team))+"/retire", reasoned{reason}, http.Header{"If-Match": {"*"}}, &t)
	return stateOf(t), t.Ended, err
}

// restore puts back what the store of the gateway has lost, or says what that is.
func (a *adminAPI) restore(ctx context.Context, reason string, dry bool) ([]rollout.Loss, error) {
	var r console.Restoration
	var err error
	if dry {
		err = a.call(ctx, http.MethodGet, "restore", nil, nil, &r)
	} else {
		err = a.call(ctx, http.MethodPost, "restore", reasoned{reason}, nil, &r)
	}
	lost := make([]rollout.Loss, 0, len(r.Teams))
	for _, t := range r.Teams {
		lost = append(lost, rollout.Loss{
			Team: t.Team, Has: rollout.State{Percent: rollout.Percent(t.Has), Revision: t.HasRevision},
			// Whatever was written when: what is told has been lost.
			Known: rollout.State{Percent: rollout.Percent(t.Known), Retired: t.Phase == rollout.PhaseRetired, Revision: t.KnownRevision, UpdatedAt: time.Unix(0, 0)},
		})
	}
	return lost, err
}
