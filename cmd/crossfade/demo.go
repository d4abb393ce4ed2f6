package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// drawEvery is how often the table is drawn: in place on a terminal, as one
// more block elsewhere.
const (
	drawEvery      = 500 * time.Millisecond
	drawEveryBlock = 5 * time.Second
)

// demoOptions are the flags of the demo.
type demoOptions struct {
	dir, listen string
	length      time.Duration
}

func (p *program) demoCommand() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Four teams on recorded Luigi traffic, with nothing but this program",
		Long: `Start the gateway on an in-process Redis, with a built-in identity provider and
a stand-in scheduler that answers as a real one was recorded, and replay recorded
Luigi traffic through it as four teams. Workers have passwords; those that were
migrated also have an agent beside them (crossfade agent), which adds a token and
keeps it fresh. The agents of data-eng are right, one of billing was set up for
another audience, search has none, and ml-platform, already at 50%, has one for half
of its workers. What an agent says when its workers are refused stands below the
table.

Edit the rollout files that it names, save, and watch the table. Ctrl-C ends. Exit
code 1 if what the gateway saw contradicts what was sent.`,
		Example: `  crossfade demo
  crossfade demo --for 20s
  crossfade demo --for 20s -o json`,
		Args: cobra.NoArgs,
	}
	out := outputFlag(c, "table", "json", "yaml")
	c.Flags().DurationVar(&o.length, "for", 0, "end by itself after this time; 0 runs until Ctrl-C")
	c.Flags().StringVar(&o.dir, "dir", "crossfade-demo", "where the demo writes its files")
	c.Flags().StringVar(&o.listen, "listen", "127.0.0.1:8080", "where the gateway listens; another port if it is taken")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if o.length < 0 {
			return usage("--for %s: a demo cannot end before it begins", o.length)
		}
		return p.demo(c.Context(), o, out)
	}
	return c
}

func (p *program) demo(ctx context.Context, o demoOptions, out *output) error {
	// The identity provider's library logs to the default logger; what the
	// demo has to say is in its table.
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))

	notice := &notice{talk: p.stderr}
	stage, err := newDemoStage(ctx, o.dir, o.listen, notice)
	if err != nil {
		return err
	}
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	percentOf := func(team identity.Team) rollout.Percent {
		state, _ := stage.table.Lookup(team)
		return state.Percent
	}
	talk := p.stderr
	if out.format == "table" {
		talk = p.stdout
	}
	watching, err := stage.watchFiles(ctx, notice)
	if err != nil {
		stage.close()
		return err
	}
	screen, every := p.screen(talk, stage, o)
	ended := make(chan error, 1)
	go func() { ended <- stage.run(ctx, p.force) }()

	begin := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	draw := func() {
		if out.format == "table" {
			screen.Notice(notice.get(time.Now()))
			_ = screen.Draw(stage.tally.summary(percentOf), time.Since(begin)) // nobody looks, nobody misses it
		}
	}
	draw()
	for running := true; running; {
		select {
		case <-tick.C:
			draw()
		case err = <-ended:
			running = false
		}
	}
	<-watching
	draw()
	if err != nil {
		return err
	}
	if out.format == "table" {
		_, _ = fmt.Fprintf(p.stdout, "\nThe agents fetched %d tokens.\n", stage.fetched)
	}
	return p.concludeDemo(stage.tally, stage.tally.summary(percentOf), out)
}

// concludeDemo prints the summary and holds what was seen against what was
// sent.
func (p *program) concludeDemo(t *tally, s demo.Summary, out *output) error {
	if out.format != "table" {
		if err := out.write(p.stdout, s, nil); err != nil {
			return err
		}
	}
	wrong := t.contradictions()
	if len(wrong) > 0 {
		return fmt.Errorf("what the gateway saw contradicts what was sent:\n  %s", strings.Join(wrong, "\n  "))
	}
	if out.format == "table" {
		_, _ = fmt.Fprintln(p.stdout, "\nWhat the gateway saw is what was sent.")
	}
	return nil
}

// watchFiles applies what is saved in the rollout files, until ctx is done.
func (s *demoStage) watchFiles(ctx context.Context, n *notice) (done <-chan struct{}, err error) {
	w, err := demo.NewWatcher(demo.WatcherOptions{
		Dir: filepath.Join(s.dir, "rollout.d"),
		Apply: func(team identity.Team, percent int) error {
			n.clear()
			if !s.tally.knows(team) {
				return fmt.Errorf("%q is no team of the demo", team)
			}
			if state, _ := s.table.Lookup(team); int(state.Percent) == percent {
				return nil
			}
			_, err := s.setPercent(ctx, team, rollout.Percent(percent), "the file was saved")
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		},
		Report: n.set,
	})
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	return ended, nil
}

// wordsFor is how long the words of an agent stay, which says them again while
// they hold.
const wordsFor = 10 * time.Second

// notice is what stands below the table: the last mistake in a rollout file,
// which is also written once since the screen would draw over the line, and the
// last words of an agent, which are for the screen alone.
type notice struct {
	talk  io.Writer
	mu    sync.Mutex
	text  string
	words string
	until time.Time // when the words go
}

func (n *notice) set(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = err.Error()
	_, _ = fmt.Fprintf(n.talk, "crossfade demo: %v\n", err)
}

func (n *notice) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text, n.words = "", ""
}

// say takes what an agent writes to the stderr of a team's worker.
func (n *notice) say(team identity.Team, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.words = fmt.Sprintf("What a worker of %s has on its stderr:\n%s", team, strings.TrimSuffix(text, "\n"))
	n.until = time.Now().Add(wordsFor)
}

// get is what there is to show now: a mistake comes before the words.
func (n *notice) get(now time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.text == "" && now.Before(n.until) {
		return n.words
	}
	return n.text
}

func (p *program) screen(w io.Writer, s *demoStage, o demoOptions) (*demo.Screen, time.Duration) {
	var terminal, color bool
	if f, ok := w.(*os.File); ok {
		terminal, color = demo.TerminalOf(f, os.Getenv)
	}
	every := drawEveryBlock
	if terminal {
		every = drawEvery
	}
	var teams []identity.Team
	for _, sc := range scenes() {
		teams = append(teams, sc.team)
	}
	gateway := "http://" + s.app.Addr()
	return demo.NewScreen(demo.ScreenOptions{
		Out: w, Terminal: terminal, Color: color, Teams: teams,
		Addresses: []demo.Address{
			{Name: "gateway", URL: gateway + "/"},
			{Name: "metrics", URL: "http://" + s.app.MetricsAddr() + "/metrics"},
		},
		Intro: []string{
			"Recorded Luigi traffic, in-process Redis, built-in identity provider " + s.issuer.URL(),
			fmt.Sprintf("Beside the workers that have tokens: %d agents. A token lives %s.", len(s.agents), tokenLifetime),
		},
		Footer: []string{
			"You are the team lead now. Edit and save, then watch this table:",
			fmt.Sprintf("   %s       percent: 0   ->   percent: 50", filepath.Join(o.dir, "rollout.d", "data-eng.yaml")),
			"Try it:  curl -u svc-etl:legacy-pass " + gateway + "/api/task_list",
			"         curl -i -u svc-etl:wrong " + gateway + "/api/task_list",
			"         curl -s http://" + s.app.MetricsAddr() + "/metrics | grep shadow_verdicts",
			"Ctrl-C ends.",
		},
	}), every
}
