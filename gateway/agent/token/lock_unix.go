//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package token

import (
	"os"
	"syscall"
)

// lock keeps others out of a file for as long as it is open.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
