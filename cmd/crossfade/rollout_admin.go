package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agenttoken "crossfade/gateway/agent/token"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
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
	f.String("audience", "", "with --admin: the audience of a token that is asked for, as in a GitHub Actions job")
}

// adminAPI is the admin API of one gateway, as one command uses it.
type adminAPI struct {
	base   *url.URL
	token  identity.Secret
	client *http.Client
}

// admin returns the API that --admin names; nil without the flag.
func (p *program) admin(c *cobra.Command) (*adminAPI, error) {
	flags := c.Flags()
	text, _ := flags.GetString("admin")
	file, _ := flags.GetString("token-file")
	if text == "" {
		if flags.Changed("admin") || file != "" {
			return nil, usage("--token-file goes with --admin URL")
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
	token, err := p.adminToken(c, file)
	if err != nil {
		return nil, err
	}
	return &adminAPI{base: base, token: token, client: &http.Client{
		// A token is for the address that was named, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       4 * storeTimeout,
	}}, nil
}

// onThisMachine reports whether a host is a loopback name.
func onThisMachine(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// adminToken obtains the token of a command.
func (p *program) adminToken(c *cobra.Command, file string) (identity.Secret, error) {
	if token := p.getenv(tokenVariable); file == "" && token != "" {
		return identity.NewSecret(strings.TrimSpace(token)), nil
	}
	source, err := p.tokenSource(agentOptions{source: "auto", params: agenttoken.Params{File: file}})
	var wrong *exitError
	if errors.As(err, &wrong) {
		return identity.Secret{}, usage("no token for --admin: name its file by --token-file, put it into $%s, or run `crossfade login`", tokenVariable)
	}
	if err != nil {
		return identity.Secret{}, err
	}
	audience, _ := c.Flags().GetString("audience")
	ctx, cancel := context.WithTimeout(c.Context(), 4*storeTimeout)
	defer cancel()
	token, err := source.Token(ctx, agenttoken.Request{Audience: audience})
	if err != nil {
		return identity.Secret{}, fmt.Errorf("a token for --admin: %w", err)
	}
	return token.Value, nil
}

// adminProblem is a refusal of the API.
type adminProblem struct {
	Status  int    `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Do      string `json:"do"`
}

// exit is the refusal as an error with its exit code.
func (a adminProblem) exit() error {
	codes := map[int]int{
		http.StatusPreconditionFailed: exitConflict, http.StatusConflict: exitRefused, http.StatusServiceUnavailable: exitStore,
		http.StatusBadRequest: exitUsage, http.StatusNotFound: exitUsage, http.StatusUnprocessableEntity: exitUsage,
	}
	code, ok := codes[a.Status]
	if !ok {
		code = exitFailure
	}
	return &exitError{code, fmt.Errorf("%s: %s %s", a.Reason, a.Message, a.Do)}
}

// call asks the API and reads what it answers into result.
func (a *adminAPI) call(ctx context.Context, method, path string, body any, header http.Header, result any) error {
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
		return &exitError{exitStore, fmt.Errorf("the admin API cannot be reached: %w", unwrapped(err))}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminReply))
	if err != nil {
		return &exitError{exitStore, fmt.Errorf("the answer of the admin API broke off: look at the team before you try again: %w", err)}
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusAccepted {
		if err := json.Unmarshal(text, result); err == nil {
			return nil
		}
	}
	var problem adminProblem
	if json.Unmarshal(text, &problem) != nil || problem.Reason == "" || problem.Reason == string(identity.RPCUnknown) { // that is the listener for clients
		return fmt.Errorf("%s answers %s, which is no admin API of Crossfade: name its admin listener by --admin", a.base.Host, resp.Status)
	}
	problem.Status = resp.StatusCode
	return problem.exit()
}

// unwrapped takes off what the client says of its request: the URL was named.
func unwrapped(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return err
}

// adminTeam is a team as the API shows it; its phase is a word.
type adminTeam struct {
	console.Team
	Phase string `json:"phase"`
}

// state is the team as the commands know it.
func (t adminTeam) state() rollout.State {
	s := rollout.State{
		Team: t.Team.Team, Percent: rollout.Percent(t.Percent), Previous: rollout.Percent(t.Previous), Revision: t.Revision,
		UpdatedAt: t.Updated, Retired: t.Phase == rollout.PhaseRetired.String(),
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
	var t adminTeam
	err := a.call(ctx, method, "teams/"+url.PathEscape(string(team))+what, body, header, &t)
	return t.state(), err
}

// states returns the teams that were ever changed, and for how many of its runs
// the percentage of each is in effect.
func (a *adminAPI) states(ctx context.Context) (map[identity.Team]rollout.State, map[identity.Team]effect.Share, error) {
	var list struct {
		Teams []adminTeam `json:"teams"`
	}
	if err := a.call(ctx, http.MethodGet, "teams", nil, nil, &list); err != nil {
		return nil, nil, err
	}
	states := make(map[identity.Team]rollout.State, len(list.Teams))
	shares := make(map[identity.Team]effect.Share)
	for _, t := range list.Teams {
		if t.Revision > 0 {
			states[t.Team.Team] = t.state()
		}
		if t.InEffect != nil {
			shares[t.Team.Team] = *t.InEffect
		}
	}
	return states, shares, nil
}

// live is not told over the API.
func (a *adminAPI) live(context.Context) (string, error) { return "", nil }

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
	var t adminTeam
	err = a.call(ctx, http.MethodPost, "teams/"+url.PathEscape(string(row.Team))+"/request", askingOf(row.request(by)), nil, &t)
	return t.state(), t.Why, err
}

// fill asks what would become of the rows' files, and completes the rows with it.
// Raises wait for the hours of the file that was read here, too: the gateway may
// have no such file.
func (a *adminAPI) fill(ctx context.Context, rows []planRow, now time.Time) error {
	type plan struct {
		Requests []asking `json:"requests"`
	}
	ask := plan{Requests: make([]asking, 0, len(rows))}
	for _, row := range rows {
		if row.file.Retire {
			return usage("team %s asks to be retired, which is not asked for over the admin API: `crossfade rollout retire %s` goes straight to Redis", row.file.Team, row.file.Team)
		}
		q := askingOf(row.request(rollout.Setting{}))
		q.Team = row.file.Team
		ask.Requests = append(ask.Requests, q)
	}
	var got console.Plan
	if err := a.call(ctx, http.MethodPost, "plan", ask, nil, &got); err != nil {
		return err
	}
	if len(got.Steps) != len(rows) {
		return fmt.Errorf("the admin API answers %d of %d requests: its version and this one differ", len(got.Steps), len(rows))
	}
	for i, s := range got.Steps {
		f := rows[i].file
		row := planRow{
			Team: s.Team, From: s.From, To: s.To, Outcome: s.Outcome, Why: s.Why, Owner: s.Owner,
			Forecast: s.Forecast, Overridden: s.Overridden, file: f,
			step: rollout.Step{
				Outcome: outcomeOf(s.Outcome), From: rollout.Percent(s.From), To: rollout.Percent(s.To), Why: s.Why, Owner: s.Owner, Overridden: s.Overridden,
			},
			state: rollout.State{Team: s.Team, Percent: rollout.Percent(s.From), Revision: s.Revision},
		}
		if !s.Changes { // what is asked for is what the file says
			row.state.Request = rollout.Request{Percent: f.Percent, Digest: f.Digest, At: now}
		}
		if row.step.Outcome == rollout.Raise && f.Open != nil && !f.Open(now) {
			row.step.Outcome, row.Outcome = rollout.Closed, rollout.Closed.String()
			row.Keep = 0
			row.state.Request = rollout.Request{Percent: f.Percent, Digest: f.Digest, At: now} // asks for nothing now
		}
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
