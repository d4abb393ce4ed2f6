package telemetry

import (
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"

	"crossfade/gateway"
)

// Colours of a terminal (ECMA-48 section 8.3.117, SGR).
const (
	sgrReset  = "\x1b[0m"
	sgrRed    = "\x1b[31m"
	sgrYellow = "\x1b[33m"
	sgrFaint  = "\x1b[2m"
)

// appendPlain appends one line for people: time, status, duration, outcome,
// team, account, scheme, request, why it was refused, the shadow's verdict with
// its reason, the code of a security signal, the other account, what is wrong with
// a proxy's question, what broke, trace id.
func appendPlain(b []byte, ev *gateway.Event) []byte { return appendText(b, ev, false) }

func appendColored(b []byte, ev *gateway.Event) []byte { return appendText(b, ev, true) }

func appendText(b []byte, ev *gateway.Event, color bool) []byte {
	paint, reset := "", ""
	if color {
		paint, reset = lineColor(ev), sgrReset
	}
	b = ev.Start.Add(ev.Duration).AppendFormat(b, "15:04:05.000 ")
	b = append(b, paint...)
	b = pad(strconv.AppendInt(b, int64(ev.Status), 10), len(b), 3)
	b = append(b, ' ')
	b = pad(append(b, closedOutcome(ev.Decision.Outcome)...), len(b), 12)
	if paint != "" {
		b = append(b, reset...)
	}
	b = append(b, ' ')
	b = pad(appendShortTime(b, ev.Duration), len(b), 8)
	b = append(b, ' ')
	b = pad(appendWord(b, string(ev.Team()), maxName), len(b), 14)
	b = append(b, ' ')
	b = pad(appendWord(b, ev.Principal.Name, maxName), len(b), 16)
	b = append(b, ' ')
	b = pad(append(b, ev.Scheme().String()...), len(b), 13)
	b = append(b, ' ')
	start := len(b)
	b = appendWord(b, ev.Method, maxMethod)
	b = append(b, ' ')
	b = pad(appendWord(b, ev.Path, maxPath), start, 32)
	if ev.Decision.Reason != "" {
		b = append(b, " reason="...)
		b = appendWord(b, string(ev.Decision.Reason), maxName)
	}
	if ev.Shadow.Verdict != "" {
		b = append(b, " shadow="...)
		b = appendWord(b, string(ev.Shadow.Verdict), maxName)
	}
	if ev.Shadow.Reason != "" {
		b = append(b, '/')
		b = appendWord(b, string(ev.Shadow.Reason), maxName)
	}
	if reason, ok := ev.Signal(); ok {
		b = append(b, " code="...)
		b = appendCode(b, reason)
	}
	if ev.Other != "" {
		b = append(b, " other="...)
		b = appendWord(b, ev.Other, maxName)
	}
	if ev.Fault != "" {
		b = append(b, " fault="...)
		b = appendWord(b, ev.Fault, maxName)
	}
	if ev.UpstreamErr != nil {
		b = append(b, " error="...)
		b = appendWord(b, ev.UpstreamErr.Error(), maxError)
	}
	if ev.TraceID != "" {
		b = append(b, ' ')
		if color {
			b = append(b, sgrFaint...)
		}
		b = appendWord(b, ev.TraceID, maxName)
		b = append(b, reset...)
	}
	return append(b, '\n')
}

// lineColor is "" for what needs no attention.
func lineColor(ev *gateway.Event) string {
	switch attention := level(ev); {
	case attention == slog.LevelError.String():
		return sgrRed
	case attention == slog.LevelWarn.String(), ev.Decision.Outcome == gateway.WouldRefuse:
		return sgrYellow
	default:
		return ""
	}
}

// pad fills b with spaces up to width columns after start.
func pad(b []byte, start, width int) []byte {
	for n := utf8.RuneCount(b[start:]); n < width; n++ {
		b = append(b, ' ')
	}
	return b
}

// appendShortTime appends a duration with three digits or so.
func appendShortTime(b []byte, d time.Duration) []byte {
	switch {
	case d < time.Millisecond:
		return append(strconv.AppendInt(b, max(d, 0).Microseconds(), 10), "µs"...)
	case d < time.Second:
		return append(strconv.AppendFloat(b, float64(d)/float64(time.Millisecond), 'f', 1, 64), "ms"...)
	default:
		return append(strconv.AppendFloat(b, d.Seconds(), 'f', 2, 64), 's')
	}
}

// appendWord appends s as one word: as it is where it is plain, else quoted,
// with everything that does not print escaped. "-" stands for nothing.
func appendWord(b []byte, s string, limit int) []byte {
	if s == "" {
		return append(b, '-')
	}
	s = clip(s, limit)
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return strconv.AppendQuote(b, s)
		}
	}
	return append(b, s...)
}
