package main

import (
	"context"
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
	"crossfade/config"
	"crossfade/gateway/identity"
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
keeps it fresh. What an agent says when its workers are refused stands below the
table.

Percentages follow the teams' files as they do anywhere: a raise waits until the
checks of readiness hold, a lowering follows at once, and a raise that hurts two
accounts is taken back. Only time is scaled: 20 seconds stand for 14 days. Then
data-eng, whose agents are right, may be raised; billing may not, since one of its
agents was set up for another audience; search waits, since it has no agents; and
ml-platform asks for 50%, gets it, loses its agents at that moment, and is rolled
back and held.

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
	talk := p.stderr
	if out.format == "table" {
		talk = p.stdout
	}
	defer stage.close()
	screen, every := p.screen(talk, stage, o)
	ended := make(chan error, 1)
	go func() { ended <- stage.run(ctx, p.force) }()

	begin := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	// Files are looked at whether or not a table is due.
	files := time.NewTicker(drawEvery)
	defer files.Stop()
	draw := func() demo.Summary {
		summary := stage.summary(ctx)
		if out.format == "table" {
			screen.Notice(notice.get(time.Now()))
			_ = screen.Draw(summary, time.Since(begin)) // nobody looks, nobody misses it
		}
		return summary
	}
	draw()
	for running := true; running; {
		select {
		case <-tick.C:
			draw()
		case <-files.C:
			notice.mistaken(stage.app.FileMistakes())
		case err = <-ended:
			running = false
		}
	}
	stage.looked = time.Time{} // there may be more evidence since
	summary := draw()
	if err != nil {
		return err
	}
	if out.format == "table" {
		_, _ = fmt.Fprintf(p.stdout, "\nThe agents fetched %d tokens.\n", stage.fetched)
	}
	return p.concludeDemo(stage.tally, summary, out)
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

// wordsFor is how long the words of an agent stay, which says them again while
// they hold.
const wordsFor = 10 * time.Second

// notice is what stands below the table: the mistakes in the rollout files, which
// are also written once since the screen would draw over the lines, and the last
// words of an agent, which are for the screen alone.
type notice struct {
	talk  io.Writer
	mu    sync.Mutex
	text  string
	words string
	until time.Time // when the words go
}

// mistaken takes what is wrong in the files now; nothing if they are all right.
func (n *notice) mistaken(mistakes config.Errors) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := ""
	if len(mistakes) > 0 {
		text = mistakes.Error() + "\nThe team stays as it is until its file is right again."
	}
	if text != "" && text != n.text {
		_, _ = fmt.Fprintf(n.talk, "crossfade demo: %s\n", text)
	}
	n.text = text
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
	var size func() (columns, rows int)
	if f, ok := w.(*os.File); ok {
		terminal, color = demo.TerminalOf(f, os.Getenv)
		size = demo.SizeOf(f)
	}
	every := drawEveryBlock
	if terminal {
		every = drawEvery
	}
	gateway, metrics := "http://"+s.app.Addr(), "http://"+s.app.MetricsAddr()+"/metrics"
	file := func(team string) string { return filepath.Join(o.dir, "rollout.d", team+".yaml") }
	width := len(file("data-eng"))
	return demo.NewScreen(demo.ScreenOptions{
		Out: w, Terminal: terminal, Size: size, Color: color, Teams: demoTeams(),
		Addresses: []demo.Address{
			{Name: "console", URL: "http://" + s.app.AdminAddr() + "/"},
			{Name: "metrics", URL: metrics},
		},
		Intro: []string{
			"Recorded Luigi traffic, in-process Redis, built-in identity provider.",
			fmt.Sprintf("Scaled: %d days = %d s.", demoDays, demoWindow/time.Second),
		},
		Footer: []string{
			"You are the team lead now. Edit and save, then watch this table:",
			fmt.Sprintf("   %-*s       percent: 0   ->   percent: 50", width, file("data-eng")),
			fmt.Sprintf("   %-*s       percent: 0   ->   percent: 10", width, file("billing")),
			"Try it:  curl -u svc-etl:legacy-pass " + gateway + "/api/task_list",
			"         curl -s http://" + s.app.AdminAddr() + "/api/v1/teams/billing",
			"         curl -s " + metrics + " | grep shadow_verdicts",
			"Ctrl-C ends.",
		},
	}), every
}
