package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/audit"
)

func (p *program) auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Verify the audit trail, and ask it who ran what",
		Long: `Read the audit trail that gateways write where the configuration has an
audit.file: one JSON line for each use of a credential and for each executed
task, each line chained to the one before it by its hash.`,
		Example: `  crossfade audit verify --heads
  crossfade audit tasks --since 24h --team data-eng`,
	}
	c.AddCommand(p.auditVerify(), p.auditTasks())
	return c
}

// auditFiles are the named files or, without any, the configured one with its
// rotated siblings.
func (p *program) auditFiles(named []string) ([]string, error) {
	for _, name := range named {
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return nil, usage("%w: name files of an audit trail", err)
		case info.IsDir():
			return nil, usage("%s is a directory: name its files", name)
		}
	}
	if len(named) > 0 {
		return named, nil
	}
	source := p.source(nil)
	source.Partial = true
	cfg, err := config.Load(source)
	if err != nil {
		return nil, err
	}
	if cfg.Audit.File == "" {
		return nil, usage("no audit trail is configured: name its files, or set audit.file in the configuration")
	}
	files, err := audit.Files(string(cfg.Audit.File))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s is not there yet, nor any file that was rotated: no gateway has written it on this machine", cfg.Audit.File)
	}
	return files, nil
}

// auditHeads asks the configured Redis how far each chain has come.
func (p *program) auditHeads(c *cobra.Command) (map[string]audit.Head, error) {
	flags := make(map[string]any)
	if f := c.Flags().Lookup("redis"); f.Changed {
		flags["redis.url"] = f.Value.String()
	}
	source := p.source(flags)
	source.Partial = true
	cfg, err := config.Load(source)
	if err != nil {
		return nil, err
	}
	if cfg.Redis.InProcess() {
		return nil, &exitError{exitStore, errors.New("no Redis is configured, so no heads are kept outside of the machine: " +
			"name one under `redis` in the configuration, by CROSSFADE_REDIS_URL or by --redis, or verify without --heads")}
	}
	store, err := app.OpenRedis(cfg.Redis)
	if err != nil {
		return nil, err
	}
	defer func() { _ = store.Close() }() // nothing was written
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	texts, err := store.Heads(ctx)
	if err != nil {
		return nil, err
	}
	return audit.ParseHeads(texts)
}

func (p *program) auditVerify() *cobra.Command {
	var heads bool
	c := &cobra.Command{
		Use:   "verify [FILE...]",
		Short: "Find lines that were removed, altered, reordered or cut off",
		Long: `Follow the chain of hashes through the files of an audit trail, in any order and
of several replicas; without FILE, through the configured file and its rotated
siblings. Every break is named with file and line, and the exit code is 1.

The chain alone cannot show that lines were taken off its end, nor that all of
it was written anew: --heads compares with what the gateways have checkpointed
to Redis.`,
		Example: `  crossfade audit verify
  crossfade audit verify --heads
  crossfade audit verify /var/log/crossfade/audit*.jsonl -o json`,
	}
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	c.Flags().BoolVar(&heads, "heads", false, "compare with the heads in Redis, so that a missing end shows")
	c.Flags().String("redis", "", "the Redis of the gateways, redis://host:port/db, instead of the configured one")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		files, err := p.auditFiles(args)
		if err != nil {
			return err
		}
		var known map[string]audit.Head
		if heads {
			if known, err = p.auditHeads(c); err != nil {
				return err
			}
		}
		report, err := audit.Verify(files, known)
		if err != nil {
			return err
		}
		if out.format == "table" {
			err = p.verified(report, heads)
		} else {
			err = out.write(p.stdout, report, findings(report))
		}
		if err == nil && !report.Intact() {
			err = &exitError{exitFailure, fmt.Errorf("the audit trail is broken in %s", places(len(report.Findings)+report.More))}
		}
		return err
	}
	return c
}

func findings(r audit.Report) table {
	t := table{{"FILE", "LINE", "WHAT", "MEANS"}}
	for _, f := range r.Findings {
		t = append(t, []string{f.File, strconv.Itoa(f.Line), string(f.What), f.Text})
	}
	return t
}

// maxShown is how many findings people are shown; programs get all.
const maxShown = 20

// verified shows a report to people: the answer, what is wrong, what else is
// worth knowing.
func (p *program) verified(r audit.Report, heads bool) error {
	var b strings.Builder
	if r.Intact() {
		b.WriteString("INTACT. Every line is the one that the next line names.\n")
	} else {
		fmt.Fprintf(&b, "BROKEN in %s.\n", places(len(r.Findings)+r.More))
	}
	shown := r.Findings[:min(len(r.Findings), maxShown)]
	for _, f := range shown {
		at := f.File
		if f.Line > 0 {
			at += ":" + strconv.Itoa(f.Line)
		}
		fmt.Fprintf(&b, "\n  %-9s  %s\n             %s\n", f.What, at, f.Text)
	}
	if more := len(r.Findings) - len(shown) + r.More; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more; -o json shows %d\n", more, len(r.Findings))
	}
	b.WriteString("\n")
	if _, err := p.stdout.Write([]byte(b.String())); err != nil {
		return err
	}
	t := table{{"REPLICA", "LINES", "FROM", "TO", "FILES", "CHECKPOINT"}}
	for _, c := range r.Chains {
		checkpoint := "not asked (--heads)"
		switch {
		case c.Head > 0:
			checkpoint = fmt.Sprintf("line %d", c.Head)
		case heads:
			checkpoint = "none in Redis"
		}
		t = append(t, []string{
			c.Replica, fmt.Sprintf("%d to %d", c.First, c.Last), stamp(c.From), stamp(c.To), strconv.Itoa(len(c.Files)), checkpoint,
		})
	}
	if len(r.Chains) == 0 {
		_, err := fmt.Fprintln(p.stderr, "The files hold no line of an audit trail.")
		return err
	}
	if err := t.text(p.stdout); err != nil {
		return err
	}
	return p.remarks(r)
}

// remarks say what is no break and worth knowing.
func (p *program) remarks(r audit.Report) error {
	var b strings.Builder
	for _, c := range r.Chains {
		if c.First > 1 {
			fmt.Fprintf(&b, "%s begins with line %d: what was before is in files that were not named, or were deleted.\n", c.Replica, c.First)
		}
		if c.Torn > 0 {
			fmt.Fprintf(&b, "%s: %s after a crash, and accounted for.\n", c.Replica, plural(c.Torn, "torn tail"))
		}
		if c.Lost > 0 {
			fmt.Fprintf(&b, "%s: %s found no room to wait, and the trail says so.\n", c.Replica, plural(int(c.Lost), "record"))
		}
	}
	if len(r.Unseen) > 0 {
		fmt.Fprintf(&b, "Redis knows %s of which no file was named: %s.\n", plural(len(r.Unseen), "more replica"), strings.Join(r.Unseen, ", "))
	}
	_, err := p.stderr.Write([]byte(b.String()))
	return err
}

func places(n int) string { return plural(n, "place") }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// stamp is a time as tables show it.
func stamp(at time.Time) string { return at.Local().Format("2 Jan 15:04:05") }

func (p *program) auditTasks() *cobra.Command {
	var since time.Duration
	var filter audit.Filter
	c := &cobra.Command{
		Use:   "tasks [FILE...]",
		Short: "Show which tasks ran, and on whose behalf",
		Long: `Show the executed tasks of an audit trail, the newest last; without FILE, those
of the configured file and its rotated siblings. It believes the files:
` + "`crossfade audit verify`" + ` says whether they are to be believed.`,
		Example: `  crossfade audit tasks --since 24h
  crossfade audit tasks --since 168h --team data-eng --family LoadUsers
  crossfade audit tasks --account svc-etl -o json`,
	}
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	c.Flags().DurationVar(&since, "since", 24*time.Hour, "how long ago they ended at most")
	c.Flags().StringVar(&filter.Account, "account", "", "only those of this account")
	c.Flags().StringVar(&filter.Team, "team", "", "only those of this team")
	c.Flags().StringVar(&filter.Family, "family", "", "only those of this task family")
	c.Flags().StringVar(&filter.ClientRun, "client-run", "", "only those of the run that its client calls so (CROSSFADE_RUN of crossfade agent)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if since <= 0 {
			return usage("--since %s: must be a duration like 24h", since)
		}
		files, err := p.auditFiles(args)
		if err != nil {
			return err
		}
		filter.Since = time.Now().Add(-since)
		tasks, broken, err := audit.Tasks(files, filter)
		if err != nil {
			return err
		}
		if broken > 0 {
			if _, err := fmt.Fprintf(p.stderr, "%s cannot be read: `crossfade audit verify` says more.\n", plural(broken, "line")); err != nil {
				return err
			}
		}
		if len(tasks) == 0 && out.format == "table" {
			_, err := fmt.Fprintf(p.stderr, "No task%s ended in the last %s, says %s.\n", chosen(filter), since, plural(len(files), "file"))
			return err
		}
		if tasks == nil {
			tasks = []audit.Executed{} // a list, for programs
		}
		return out.write(p.stdout, tasks, taskTable(tasks))
	}
	return c
}

// chosen says which tasks were asked for.
func chosen(f audit.Filter) string {
	var b strings.Builder
	for _, by := range []struct{ name, value string }{{"account", f.Account}, {"team", f.Team}, {"family", f.Family}, {"client run", f.ClientRun}} {
		if by.value != "" {
			fmt.Fprintf(&b, " of %s %q", by.name, by.value)
		}
	}
	return b.String()
}

func taskTable(tasks []audit.Executed) table {
	t := table{{"STARTED", "TOOK", "OUTCOME", "FAMILY", "TASK", "ACCOUNT", "TEAM", "SCHEME"}}
	for _, e := range tasks {
		started, took := "not seen", "-"
		if !e.Started.IsZero() {
			started, took = stamp(e.Started), e.Ended.Sub(e.Started).Round(time.Second).String()
		}
		outcome := e.Outcome
		if e.Grace {
			outcome += " (grace)"
		}
		t = append(t, []string{started, took, outcome, e.Family, e.Task.Task, e.Principal, e.Team, e.Scheme})
	}
	return t
}
