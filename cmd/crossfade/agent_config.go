package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"crossfade/config"
	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
)

// agentConfigured adds to the flags of a command line what the configuration of
// the agent says. Flags win; a flag that names a source of tokens hides what the
// configuration says of others.
func (p *program) agentConfigured(c *cobra.Command, o agentOptions) (agentOptions, error) {
	cfg, err := config.LoadAgent(config.Source{File: p.configFile, Env: p.environ})
	if err != nil {
		return o, err
	}
	changed := func(flag string) bool { return c.Flags().Changed(flag) }
	for _, source := range []string{"source", "token-file", "client-id", "subject-token-file", "token-command"} {
		if changed(source) {
			cfg.Token.Source, cfg.Token.File, cfg.Token.ClientID = "auto", "", ""
			cfg.Token.SubjectTokenFile, cfg.Token.Command = "", nil
			break
		}
	}
	switch { // one of the two, and the flag
	case changed("issuer"):
		cfg.Token.TokenURL = ""
	case changed("token-url"):
		cfg.Token.Issuer = ""
	}
	t, params := &cfg.Token, &o.params
	gateway := ""
	if cfg.Gateway != nil {
		gateway = cfg.Gateway.String()
	}
	for flag, option := range map[string]struct {
		into  *string
		value string
	}{
		"gateway": {&o.gateway, gateway}, "mode": {&o.mode, cfg.Mode}, "listen": {&o.listen, cfg.Listen},
		"ca-file": {&o.caFile, string(cfg.CAFile)}, "legacy-header": {&o.legacyHeader, cfg.LegacyHeader},
		"netrc": {&o.netrc, string(cfg.Netrc)}, "metrics": {&o.metrics, cfg.Metrics},
		"token-dir": {&o.tokenDir, string(cfg.TokenDir)}, "run-id": {&o.runID, cfg.RunID},
		"source": {&o.source, t.Source}, "audience": {&o.audience, t.Audience}, "resource": {&o.resource, t.Resource},
		"token-file": {&params.File, string(t.File)}, "issuer": {&params.Issuer, t.Issuer}, "token-url": {&params.TokenURL, t.TokenURL},
		"client-id": {&params.ClientID, t.ClientID}, "client-auth": {&params.ClientAuth, t.ClientAuth},
		"client-secret-file": {&params.SecretFile, string(t.ClientSecretFile)},
		"client-key-file":    {&params.KeyFile, string(t.ClientKeyFile)}, "client-key-id": {&params.KeyID, t.ClientKeyID},
		"client-cert-file":     {&params.CertFile, string(t.ClientCertFile)},
		"client-cert-key-file": {&params.CertKeyFile, string(t.ClientCertKeyFile)},
		"subject-token-file":   {&params.SubjectTokenFile, string(t.SubjectTokenFile)},
		"subject-token-type":   {&params.SubjectTokenType, t.SubjectTokenType},
		"requested-token-type": {&params.RequestedTokenType, t.RequestedTokenType},
		"service-account":      {&params.ServiceAccount, t.ServiceAccount},
	} {
		if !changed(flag) {
			*option.into = option.value
		}
	}
	if !changed("scope") {
		o.scopes = t.Scopes
	}
	params.Command = t.Command
	for _, pattern := range cfg.Patterns() {
		o.families = append(o.families, agent.Family{Pattern: pattern, Request: requestOf(cfg.Families[pattern])})
	}
	o.writes, err = writesOf(o.write, cfg.Write, changed("write"))
	if err != nil {
		return o, err
	}
	if o.tokenDir != "" && len(o.families) == 0 && changed("token-dir") {
		return o, usage("--token-dir: no task family has a token of its own: name them under families in the configuration (--config)")
	}
	return o, nil
}

func requestOf(t config.TokenFor) agenttoken.Request {
	return agenttoken.Request{Audience: t.Audience, Scopes: t.Scopes, Resource: t.Resource}
}

// writesOf are the tokens for others: those of the flags if there are any.
func writesOf(flags []string, configured []config.AgentWrite, byFlags bool) (all []agent.Write, err error) {
	if byFlags {
		for _, text := range flags {
			w, err := agent.ParseWrite(text)
			if err != nil {
				return nil, usage("--write %s: %w", text, err)
			}
			all = append(all, w)
		}
		return all, nil
	}
	for _, c := range configured {
		w := agent.Write{Request: requestOf(c.TokenFor), File: string(c.File)}
		if w.Format, err = agent.ParseFormat(c.Format); err != nil {
			return nil, usage("write: %w", err)
		}
		all = append(all, w)
	}
	return all, nil
}

// reaches checks that the source can do all that is asked of it, and that the
// tokens have a place.
func (s *agentStage) reaches(o agentOptions) error {
	var errs []error
	for i := range o.writes {
		if err := agenttoken.Reaches(s.source, o.writes[i].Request); err != nil {
			errs = append(errs, fmt.Errorf("a token %s: %w", o.writes[i].Name(), err))
		}
	}
	for _, f := range o.families {
		if err := agenttoken.Reaches(s.source, f.Request); err != nil {
			errs = append(errs, fmt.Errorf("a token of the task families %s: %w", f.Pattern, err))
		}
	}
	reads := o.reads()
	errs = append(errs, agent.CheckWrites(o.writes, append(reads, o.netrc)...))
	if err := errors.Join(errs...); err != nil {
		return usage("%w", err)
	}
	if o.tokenDir != "" && len(o.families) > 0 {
		err := agent.CheckTokenDir(o.tokenDir, reads...)
		if err == nil {
			err = agent.PrivateDir(o.tokenDir)
		}
		if err != nil {
			return usage("--token-dir: %w", err)
		}
	}
	return nil
}

// reads are the files that the agent was told to read.
func (o *agentOptions) reads() []string {
	p := &o.params
	return []string{
		o.caFile, p.File, p.SecretFile, p.KeyFile, p.CertFile, p.CertKeyFile, p.SubjectTokenFile,
	}
}

// writeAll begins to keep the tokens for others in their files. Where they are
// required, one that cannot be had is an agent.ErrNoToken.
func (s *agentStage) writeAll(ctx context.Context, writes []agent.Write, required bool) error {
	keepers := make([]*agenttoken.Keeper, len(writes))
	for i, w := range writes { // all of them ask at once
		keeper, err := s.keep(w.Request, s.metrics.further)
		if err != nil {
			return err
		}
		keepers[i] = keeper
		s.writes = append(s.writes, keeper)
	}
	patience := agent.DefaultPatience // workers wait for the agent
	if required {
		patience = agenttoken.DefaultTimeout
	}
	for i := range writes {
		w := &writes[i]
		upkeep, err := agent.NewUpkeep(ctx, agent.UpkeepOptions{
			Tokens: keepers[i], TokenFile: w.File, Format: w.Format, Name: w.Name(), Required: required,
			Patience: patience, Report: s.report,
		})
		switch {
		case errors.Is(err, agent.ErrNoToken):
			return err
		case err != nil:
			return fmt.Errorf("write a token %s: %w", w.Name(), err)
		}
		s.writes = append(s.writes, upkeep)
	}
	return nil
}
