package agent

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Exit codes of a command that could not be started, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	// exitSignal is added to the signal that ended a command.
	exitSignal = 128
)

// outputDelay is how long the output of a command is read once it has ended,
// where one of its children still holds it.
const outputDelay = 5 * time.Second

// Command is a command to be run in the place of the agent.
type Command struct {
	Args, Environ []string
	Stdin         io.Reader
	Stdout        io.Writer
	Stderr        io.Writer
}

// passedOn are the signals that reach the agent and are meant for its command.
func passedOn() []os.Signal {
	return []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
}

// Run runs the command to its end. Signals to this process are passed on, but
// those that a terminal sends, which the command got by itself. It returns the
// exit code of the command, 128+n if signal n ended it, 127 or 126 with an error
// if it could not be started.
func (c Command) Run() (code int, signaled bool, err error) {
	if len(c.Args) == 0 {
		return exitNotFound, false, errors.New("there is no command to run")
	}
	signals := make(chan os.Signal, 16)
	for _, s := range passedOn() {
		if !signal.Ignored(s) { // nohup, and jobs in the background: the command shall ignore it too
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)

	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = c.Environ, c.Stdin, c.Stdout, c.Stderr, outputDelay
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return exitNotFound, false, err
		}
		return exitNotExecutable, false, err
	}
	ended := make(chan struct{})
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			select {
			case s := <-signals:
				if !fromTerminal(s) {
					_ = cmd.Process.Signal(s) // one that has ended needs none
				}
			case <-ended:
				return
			}
		}
	})
	err = cmd.Wait()
	close(ended)
	passing.Wait()
	if state := cmd.ProcessState; state != nil {
		if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return exitSignal + int(status.Signal()), true, nil
		}
		return state.ExitCode(), false, nil
	}
	return 1, false, err
}

// fromTerminal reports whether a signal came from the keys of a terminal: these
// go to every process in the foreground, so the command has got it, and twice
// would be once too often (a worker that cleans up would be interrupted).
func fromTerminal(s os.Signal) bool {
	return (s == syscall.SIGINT || s == syscall.SIGQUIT) && inForeground()
}
