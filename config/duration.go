package config

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/xhit/go-str2duration/v2"
)

// durationLike says how durations are written.
const durationLike = "a duration like 30s, 5m or 14d"

// ParseDuration reads a duration as the configuration and the flags of commands
// take it: as [time.ParseDuration] does, and with d for days of 24 hours and w
// for weeks, so 14d and 1d12h are durations. It may be negative where text begins
// with a minus. The error says what a duration looks like, without the text.
func ParseDuration(text string) (time.Duration, error) {
	d, err := str2duration.ParseDuration(text)
	if err != nil {
		return 0, errors.New("must be " + durationLike)
	}
	return d, nil
}

// FormatDuration writes whole days as days and anything else as Go does.
func FormatDuration(d time.Duration) string {
	if d != 0 && d%str2duration.Day == 0 {
		return fmt.Sprintf("%dd", d/str2duration.Day)
	}
	return d.String()
}

// durationHook decodes what FormatDuration wrote.
func durationHook() mapstructure.DecodeHookFuncType {
	return func(_, to reflect.Type, data any) (any, error) {
		text, ok := data.(string)
		if !ok || to != reflect.TypeFor[time.Duration]() {
			return data, nil
		}
		return ParseDuration(text)
	}
}
