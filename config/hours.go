package config

import (
	"fmt"
	"strings"
	"time"
)

// Hours are days of the week with a time of the day at which something may
// happen. The zero value contains no time.
type Hours struct {
	days     [7]bool // by time.Weekday
	from, to int     // minutes after midnight; to is not in it
	zone     *time.Location
}

// ParseHours reads "Mon-Fri 09:00-16:00 Europe/Berlin": a day or a range of days,
// which may go over the end of the week; two times of one day, the second of
// which may be 24:00; and a time zone by its name, which may be left out for UTC.
func ParseHours(text string) (Hours, error) {
	wrong := fmt.Errorf(`must be days, times and a time zone like "Mon-Fri 09:00-16:00 Europe/Berlin"`)
	parts := strings.Fields(text)
	if len(parts) != 2 && len(parts) != 3 {
		return Hours{}, wrong
	}
	h := Hours{zone: time.UTC}
	first, last, ok := strings.Cut(parts[0], "-")
	if !ok {
		last = first
	}
	begin, err := weekday(first)
	if err != nil {
		return Hours{}, err
	}
	end, err := weekday(last)
	if err != nil {
		return Hours{}, err
	}
	for day := begin; ; day = (day + 1) % 7 {
		h.days[day] = true
		if day == end {
			break
		}
	}
	from, to, ok := strings.Cut(parts[1], "-")
	if !ok {
		return Hours{}, wrong
	}
	if h.from, err = minutes(from); err != nil {
		return Hours{}, err
	}
	if h.to, err = minutes(to); err != nil {
		return Hours{}, err
	}
	if h.from >= h.to {
		return Hours{}, fmt.Errorf("must end after they begin, on the same day: write two of them for hours over midnight")
	}
	if len(parts) == 3 {
		if h.zone, err = time.LoadLocation(parts[2]); err != nil || parts[2] == "Local" {
			return Hours{}, fmt.Errorf("must have a time zone of the IANA database, like Europe/Berlin")
		}
	}
	return h, nil
}

// Contains reports whether t lies within the hours, by the clocks of their zone.
func (h Hours) Contains(t time.Time) bool {
	if h.zone == nil {
		return false
	}
	t = t.In(h.zone)
	now := 60*t.Hour() + t.Minute()
	return h.days[t.Weekday()] && h.from <= now && now < h.to
}

// weekday reads the first three letters of a day's name.
func weekday(name string) (time.Weekday, error) {
	for day := range 7 {
		if strings.EqualFold(name, time.Weekday(day).String()[:3]) {
			return time.Weekday(day), nil
		}
	}
	return 0, fmt.Errorf("must name days as Mon, Tue, Wed, Thu, Fri, Sat and Sun")
}

// minutes reads HH:MM; 24:00 is the end of the day.
func minutes(text string) (int, error) {
	if text == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != len("15:04") {
		return 0, fmt.Errorf("must have times like 09:00, up to 24:00")
	}
	return 60*t.Hour() + t.Minute(), nil
}
