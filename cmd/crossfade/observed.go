package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/onboard"
	"crossfade/config"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
)

// evidenceTimeout bounds the reading of the evidence of all teams.
const evidenceTimeout = time.Minute

// observing is what the commands have in common that look at what was seen.
type observing struct {
	observed string
	audits   []string
	htpasswd string
	apiKeys  string
	bearer   string
}

// addFlags adds the flags; credentials adds those of files of credentials.
func (o *observing) addFlags(c *cobra.Command, observed string, credentials bool) {
	c.Flags().StringVar(&o.observed, "observed", observed, "how far to look back: 7d, 2w, 36h")
	c.Flags().StringArrayVar(&o.audits, "audit", nil, "a file of an audit trail instead of the configured one; may be given again")
	c.Flags().String("redis", "", "the Redis of the gateways, redis://host:port/db, instead of the configured one")
	if !credentials {
		return
	}
	o.credentialFlags(c)
}

func (o *observing) credentialFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.htpasswd, "htpasswd", "", "the htpasswd file, instead of the configured one")
	c.Flags().StringVar(&o.apiKeys, "api-keys", "", "the file of API keys, instead of the configured one")
	c.Flags().StringVar(&o.bearer, "static-tokens", "", "the file of static bearer tokens, instead of the configured one")
}

// load loads the configuration with what the flags say.
func (o *observing) load(p *program, c *cobra.Command, more map[string]any) (*config.Config, error) {
	flags := map[string]any{}
	maps.Copy(flags, more)
	if f := c.Flags().Lookup("redis"); f != nil && f.Changed {
		flags["redis.url"] = f.Value.String()
	}
	for key, file := range map[string]string{"legacy.htpasswd": o.htpasswd, "legacy.api_keys.file": o.apiKeys, "legacy.bearer.file": o.bearer} {
		if file != "" {
			flags[key] = file
		}
	}
	source := p.source(flags)
	source.Partial = true
	return config.Load(source)
}

// basis reads what was seen, and says of what, for the head of a file.
func (p *program) basis(c *cobra.Command, o *observing, credentials bool) (onboard.Basis, []string, error) {
	back, err := parseDays(o.observed)
	if err != nil {
		return onboard.Basis{}, nil, usage("--observed %w", err)
	}
	cfg, err := o.load(p, c, nil)
	if err != nil {
		return onboard.Basis{}, nil, err
	}
	now := time.Now()
	b := onboard.Basis{Since: now.Add(-back), Configured: cfg.Principals}
	for _, issuer := range cfg.OIDC.Issuers {
		b.Issuers = append(b.Issuers, issuer.Issuer)
	}
	var from []string
	if credentials && cfg.Legacy.Configured() {
		keyring, err := app.NewKeyring(cfg)
		if err != nil {
			return b, nil, err
		}
		b.Credentials = keyring.Credentials()
		from = append(from, credentialFiles(cfg)...)
	}
	if !cfg.Redis.InProcess() {
		ctx, cancel := context.WithTimeout(c.Context(), evidenceTimeout)
		defer cancel()
		if b.Evidence, err = readEvidence(ctx, cfg, b.Since, now); err != nil {
			return b, nil, err
		}
		from = append(from, "the evidence in "+cfg.Redis.URL.String())
	}
	files, err := o.trail(cfg)
	if err != nil {
		return b, nil, err
	}
	if len(files) > 0 {
		census, err := audit.Survey(files, b.Since)
		if err != nil {
			return b, nil, err
		}
		b.Census = &census
		from = append(from, trailName(files))
		if census.Broken > 0 {
			_, _ = fmt.Fprintf(p.stderr, "%s cannot be read: `crossfade audit verify` says more.\n", plural(census.Broken, "line"))
		}
	}
	return b, from, nil
}

// readEvidence reads what Redis knows of the accounts of all teams that it or the
// configuration knows.
func readEvidence(ctx context.Context, cfg *config.Config, since, now time.Time) (_ map[string]*onboard.Account, err error) {
	store, err := app.OpenRedis(cfg.Redis)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	snapshot, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	teams := map[identity.Team]bool{identity.Unassigned: true}
	for team := range snapshot.Teams {
		teams[team] = true
	}
	for _, team := range teamsOf(cfg) {
		teams[identity.Team(team)] = true
	}
	return onboard.ReadEvidence(ctx, store, slices.Sorted(maps.Keys(teams)), since, now)
}

// trail are the files of the audit trail: the named ones, else those of the
// configured one that are there.
func (o *observing) trail(cfg *config.Config) ([]string, error) {
	for _, name := range o.audits {
		switch info, err := os.Stat(name); {
		case err != nil:
			return nil, usage("--audit %w", err)
		case info.IsDir():
			return nil, usage("--audit %s is a directory: name its files", name)
		}
	}
	if len(o.audits) > 0 || cfg.Audit.File == "" {
		return o.audits, nil
	}
	return audit.Files(string(cfg.Audit.File))
}

func trailName(files []string) string {
	if len(files) == 1 {
		return files[0]
	}
	return fmt.Sprintf("%s and %s of the audit trail", files[len(files)-1], plural(len(files)-1, "more file"))
}

// credentialFiles are the configured files of static credentials.
func credentialFiles(cfg *config.Config) []string {
	var files []string
	for _, file := range []config.Path{cfg.Legacy.Htpasswd, cfg.Legacy.APIKeys.File, cfg.Legacy.Bearer.File} {
		if file != "" {
			files = append(files, string(file))
		}
	}
	return files
}

// head is the top of a suggested file: what it is, what it rests on, what to do.
func (o *observing) head(what string, from []string, since time.Time, do string) string {
	return fmt.Sprintf("%s\nof the last %s, since %s, by\n  %s\n%s\n", what, o.observed, since.UTC().Format(time.RFC3339), strings.Join(from, "\n  "), do)
}
