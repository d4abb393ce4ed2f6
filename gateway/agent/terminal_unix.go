//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package agent

import (
	"os"

	"golang.org/x/sys/unix"
)

// inForeground reports whether this process is in the group that a terminal
// sends its signals to.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false // no terminal
	}
	defer func() { _ = tty.Close() }()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
