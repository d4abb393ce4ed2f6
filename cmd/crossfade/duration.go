package main

import (
	"errors"
	"time"

	"crossfade/config"
)

// parseDays reads a time span as people say it: 7d, 36h, 1d12h. It is positive,
// and at most a year.
func parseDays(text string) (time.Duration, error) {
	const most = 366 * 24 * time.Hour
	span, err := config.ParseDuration(text)
	if err != nil || span <= 0 || span > most {
		return 0, errors.New("must be a time span like 7d or 36h, at most 366d")
	}
	return span, nil
}
