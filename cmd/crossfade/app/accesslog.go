package app

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"crossfade/config"
)

// accessLog is where access lines go.
type accessLog struct {
	out    *os.File
	owned  bool
	format string
	// terminal tells that people read the lines as they come.
	terminal bool
}

func openAccessLog(c config.AccessLog) (*accessLog, error) {
	l := &accessLog{format: string(c.Format)}
	switch c.File {
	case "off":
		return &accessLog{}, nil
	case "":
		l.out = os.Stderr
	case "-":
		l.out = os.Stdout
	default:
		f, err := os.OpenFile(string(c.File), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, fmt.Errorf("access_log.file: %w", err)
		}
		l.out, l.owned = f, true
	}
	l.terminal = term.IsTerminal(int(l.out.Fd()))
	if c.Format == config.LogAuto {
		l.format = string(config.LogJSON)
		if l.terminal {
			l.format = string(config.LogText)
		}
	}
	return l, nil
}

// writer is nil when no lines are wanted.
func (l *accessLog) writer() io.Writer {
	if l.out == nil {
		return nil
	}
	return l.out
}

// Close closes a file; the standard streams stay open.
func (l *accessLog) Close() error {
	if !l.owned {
		return nil
	}
	return l.out.Close()
}
