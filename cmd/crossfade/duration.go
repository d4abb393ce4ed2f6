package main

import (
	"errors"
	"strings"
	"time"

	"crossfade/config"
)

// parseDays reads a time span as people say it: 7d, 36h, 1d12h. It is positive,
// and at most a year. It is written in whole numbers and without a sign, unlike a
// duration of the configuration: 1.5d may be meant as a day and five hours, and
// +7d as the days to come.
func parseDays(text string) (time.Duration, error) {
	const most = 366 * 24 * time.Hour
	span, err := config.ParseDuration(text)
	if err != nil || strings.ContainsAny(text, "+-.") || span <= 0 || span > most {
		return 0, errors.New("must be a time span like 7d or 36h, in whole numbers and without a sign, at most 366d")
	}
	return span, nil
}
