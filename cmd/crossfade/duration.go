package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxDays is longer than anything is kept.
const maxDays = 3660

// parseDays reads a duration above zero as people say it: 7d, 2w, or what
// time.ParseDuration reads.
func parseDays(text string) (time.Duration, error) {
	wrong := fmt.Errorf("%q: must be a duration like 7d, 2w or 36h", text)
	for unit, days := range map[string]int{"d": 1, "w": 7} {
		number, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 || int(n)*days > maxDays {
			return 0, wrong
		}
		return time.Duration(n) * time.Duration(days) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxDays*24*time.Hour {
		return 0, wrong
	}
	return d, nil
}
