package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/explain"
	"crossfade/config"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/legacy"
	"crossfade/rollout"
)

func (p *program) explainCommand() *cobra.Command {
	var o observing
	c := &cobra.Command{
		Use:   "explain TRACE",
		Short: "Say why a request was decided as it was",
		Long: `Look a request up in the audit trail by its trace id, of which the first ` + fmt.Sprint(audit.MinTrace) + ` digits
are enough, and say when it was, whose, what was presented, what was decided and
why, who can do something about it and what, and what the same request would get
under the present configuration. That needs neither the password nor the token,
which are kept nowhere; what cannot be known without them is said.

The id stands in the reply that a refused client gets, in what ` + "`crossfade agent`" + `
prints and, as trace_id, in the gateway's access log. The trail is the configured one
with its rotated files, else --audit. It believes the files but for one thing: it says
whether the next line of the chain names the one that it found.`,
		Example: `  crossfade explain 4bf92f3577b34da6
  crossfade explain 4bf92f3577b34da6a3ce929d0e0e4736 --audit /var/log/crossfade/audit.jsonl
  crossfade explain 4bf92f35 -o markdown`,
		Args: cobra.ExactArgs(1),
	}
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	c.Flags().StringArrayVar(&o.audits, "audit", nil, "a file of an audit trail instead of the configured one; may be given again")
	c.Flags().String("redis", "", "the Redis of the gateways, redis://host:port/db, instead of the configured one")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		trace, err := audit.ParseTrace(args[0])
		if err != nil {
			return usage("%w", err)
		}
		files, cfg, err := p.explainFiles(c, &o)
		if err != nil {
			return err
		}
		found, err := audit.Find(files, trace)
		if err != nil {
			return err
		}
		if len(found.Hits) == 0 {
			return notFound(trace, files, found)
		}
		present := p.present(c, cfg)
		all := make([]explain.Explanation, 0, len(found.Hits))
		for _, hit := range found.Hits {
			all = append(all, explain.Explain(hit, present))
		}
		slices.SortStableFunc(all, func(a, b explain.Explanation) int { return a.At.Compare(b.At) })
		p.remarkTraces(all, found)
		return p.writeExplanations(out, all)
	}
	return c
}

// explainFiles are the files of the trail, and the configuration. Where files are
// named it may be nil: what was is worth explaining with a configuration that is
// broken, too.
func (p *program) explainFiles(c *cobra.Command, o *observing) ([]string, *config.Config, error) {
	cfg, err := o.load(p, c, nil)
	if len(o.audits) == 0 {
		if err != nil {
			return nil, nil, err
		}
		files, err := p.auditFiles(nil)
		return files, cfg, err
	}
	files, wrong := o.trail(config.Default())
	if wrong != nil {
		return nil, nil, wrong
	}
	if err != nil {
		_, _ = fmt.Fprintf(p.stderr, "The present configuration cannot be used, so nothing is said about today:\n%s\n", err)
		return files, nil, nil
	}
	return files, cfg, nil
}

// notFound says what was searched and how to find the right id.
func notFound(trace string, files []string, f audit.Found) error {
	var b strings.Builder
	fmt.Fprintf(&b, "no line of trace %s in %s:\n", trace, plural(len(files), "file"))
	for _, file := range files {
		b.WriteString("  " + file + "\n")
	}
	if f.Lines > 0 && !f.From.IsZero() {
		fmt.Fprintf(&b, "They hold %s, from %s to %s.\n", plural(int(f.Lines), "line"), f.From.UTC().Format(time.RFC3339), f.To.UTC().Format(time.RFC3339))
	} else {
		b.WriteString("They hold no line of an audit trail.\n")
	}
	if f.Counted > 0 {
		fmt.Fprintf(&b, "%s for several requests each: calls of high frequency (ping, get_work and the like) and requests that only look are counted, one line a run and minute, and only the first of them is named.\n",
			map[bool]string{true: "1 line stands", false: plural(int(f.Counted), "line") + " stand"}[f.Counted == 1])
	}
	b.WriteString("The id stands as trace_id in the reply to a refused client and in the gateway's access log. Another gateway's requests are in its own file: name it with --audit.")
	return errors.New(b.String())
}

// remarkTraces says what the lines have in common, where that could mislead.
func (p *program) remarkTraces(all []explain.Explanation, f audit.Found) {
	traces := make(map[string]bool)
	for _, e := range all {
		traces[e.Trace] = true
	}
	if len(traces) > 1 {
		_, _ = fmt.Fprintf(p.stderr, "%s begin so: give more digits for one of them.\n", plural(len(traces), "trace"))
	}
	if f.More > 0 {
		_, _ = fmt.Fprintf(p.stderr, "%s more of it, which are not shown.\n", plural(f.More, "line"))
	}
}

// present is what requests are decided by today, nil without a configuration. What
// cannot be read is left out, and said.
func (p *program) present(c *cobra.Command, cfg *config.Config) *explain.Present {
	if cfg == nil {
		return nil
	}
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(p.stderr, format+"\n", args...) }
	if cfg.File == "" && !cfg.Legacy.Configured() && cfg.PrincipalsFile == "" {
		say("No configuration was found, so nothing is said about today: name one with --config.")
		return nil
	}
	directory, rules, err := app.Rights(cfg)
	if err != nil {
		say("The present configuration cannot be used, so nothing is said about today: %v", err)
		return nil
	}
	now := &explain.Present{
		Now: time.Now(), Configuration: cfg.Hash(), Mode: app.ModeOf(cfg),
		RolesCount: cfg.Authorization == config.AuthorizationEnforce,
		HTTP:       cfg.Upstream.Profile != config.ProfileLuigi, Stickiness: app.StickinessOf(cfg),
		Directory: directory, Policy: rules,
	}
	keyring, err := app.NewKeyring(cfg)
	if err != nil {
		say("The files of static credentials cannot be used, so nothing is said about today: %v", err)
		return nil
	}
	now.Credentials = make(map[string]legacy.Info)
	for _, info := range keyring.Credentials() {
		now.Credentials[info.ID] = info
	}
	now.Rollouts, now.NoRollouts = presentRollouts(c.Context(), cfg)
	return now
}

// presentRollouts are the teams that Redis knows, or why they are not known.
func presentRollouts(ctx context.Context, cfg *config.Config) (map[identity.Team]rollout.State, string) {
	if cfg.Redis.InProcess() {
		return nil, "no Redis is configured, and an in-process one lives with its gateway"
	}
	store, err := app.OpenRedis(cfg.Redis)
	if err != nil {
		return nil, err.Error()
	}
	defer func() { _ = store.Close() }() // nothing was written
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	snapshot, err := store.Load(ctx)
	if err != nil {
		return nil, strings.TrimSuffix(err.Error(), ".")
	}
	if snapshot.Teams == nil {
		return map[identity.Team]rollout.State{}, ""
	}
	return snapshot.Teams, ""
}

func (p *program) writeExplanations(out *output, all []explain.Explanation) error {
	switch out.format {
	case "json", "yaml":
		return out.write(p.stdout, all, nil)
	}
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		if out.format == "markdown" {
			fmt.Fprintf(&b, "**%s** at %s, trace `%s`\n\n", e.Answer(), e.At.UTC().Format(time.RFC3339), e.Trace)
			t := table{{"WHAT", "FOUND"}}
			for _, row := range e.Rows() {
				t = append(t, []string{row.Label, row.Text})
			}
			if err := t.markdown(&b); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(&b, "%s   %s   trace %s\n\n", e.Answer(), stamp(e.At), e.Trace)
		for _, row := range e.Rows() {
			fmt.Fprintf(&b, "  %-10s  %s\n", row.Label, row.Text)
		}
	}
	_, err := fmt.Fprint(p.stdout, b.String())
	return err
}
