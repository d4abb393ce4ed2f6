package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"crossfade/cmd/crossfade/demo"
)

// post is where an agent stands: beside the workers of an account whose machines
// were set up alike.
type post struct {
	user  string
	sends tokens
}

// agents are those of all teams. Workers that were not migrated have none and
// talk to the gateway.
type agents map[post]*demo.Agent

// startAgents starts an agent for each account, and one more where some machines
// of it were set up for the wrong audience.
func (s *demoStage) startAgents(ctx context.Context, n *notice) error {
	for _, sc := range scenes() {
		user := sc.user
		for _, sends := range sc.workers {
			at := post{user, sends}
			if sends == noTokens || s.agents[at] != nil {
				continue
			}
			audience := demoAudience
			if sends == wrongToken {
				audience = wrongAudience
			}
			a, err := demo.NewAgent(ctx, demo.AgentOptions{
				Gateway: "http://" + s.app.Addr(), Issuer: s.issuer.URL(),
				ClientID: user, SecretFile: filepath.Join(s.dir, secretFile(user)), Audience: audience,
				Say: func(text string) { n.say(sc.team, text) },
			})
			if err != nil {
				return err
			}
			s.agents[at] = a
		}
	}
	return nil
}

// secretFile is where an account's agents find its client secret.
func secretFile(user string) string { return user + ".secret" }

// fetched is how many tokens the agents have fetched.
func (a agents) fetched() int64 {
	var n int64
	for _, one := range a {
		n += one.Fetched()
	}
	return n
}

// close ends the agents once their workers have ended.
func (a agents) close() error {
	var errs []error
	for _, one := range a {
		errs = append(errs, one.Close())
	}
	clear(a)
	return errors.Join(errs...)
}

// url is where the workers of a post send their requests; "" for the gateway.
func (a agents) url(at post) string {
	if one := a[at]; one != nil {
		return one.URL()
	}
	return ""
}

// agentsOwn begins the reasons that an agent gives where the gateway has not
// answered.
const agentsOwn = "agent_"

// unanswered reports whether the gateway has not answered a request: either
// nobody has, or an agent in its place.
func unanswered(r demo.Result) bool {
	return r.Status == 0 || strings.HasPrefix(string(r.Reason), agentsOwn)
}
