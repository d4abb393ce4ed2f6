package telemetry

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// The bounds of what clients can write into a line or a span, in bytes.
const (
	maxMethod = 32
	maxName   = 200 // names, and whatever has no bound of its own
	maxPath   = 512
	maxError  = 300
)

// lineFormat returns what lays access lines out.
//
// The encoder of the JSON format is laid by hand. For the same line the JSON
// handler of log/slog takes some five times as long, two microseconds of every
// request (BenchmarkAccessLine), and it lets through what a terminal obeys.
func lineFormat(o Options) (func([]byte, *gateway.Event) []byte, error) {
	switch o.AccessLogFormat {
	case "", "json":
		return appendJSON, nil
	case "text":
		if o.AccessLogColor && os.Getenv("NO_COLOR") == "" {
			return appendColored, nil
		}
		return appendPlain, nil
	default:
		return nil, fmt.Errorf("access log format %q: must be json or text", o.AccessLogFormat)
	}
}

// level is how much a line deserves attention: a refusal and a security signal
// WARN, what went wrong behind the gateway or in it ERROR.
func level(ev *gateway.Event) string {
	_, signal := ev.Signal()
	switch {
	case broken(ev):
		return slog.LevelError.String()
	case signal, ev.Decision.Outcome == gateway.Refused:
		return slog.LevelWarn.String()
	default:
		return slog.LevelInfo.String()
	}
}

// broken tells a request that failed by no fault of the client. A client that
// leaves is none.
func broken(ev *gateway.Event) bool {
	return ev.Decision.Outcome == gateway.Unavailable || ev.Status >= 500 ||
		ev.UpstreamErr != nil && failureKind(ev.UpstreamErr) != failureCanceled
}

// appendJSON appends one JSON object and a newline. The keys are those of
// log/slog where it has them. What does not apply is left out; times are in
// milliseconds.
func appendJSON(b []byte, ev *gateway.Event) []byte {
	b = append(b, `{"time":"`...)
	b = ev.Start.Add(ev.Duration).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `","level":"`...)
	b = append(b, level(ev)...)
	b = append(b, `","msg":"request"`...)
	b = appendField(b, `,"trace_id":`, ev.TraceID)
	b = append(b, `,"method":`...)
	b = appendQuoted(b, ev.Method, maxMethod)
	b = append(b, `,"path":`...)
	b = appendQuoted(b, ev.Path, maxPath)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(ev.Status), 10)
	b = append(b, `,"duration_ms":`...)
	b = appendMillis(b, ev.Duration)
	b = append(b, `,"team":`...)
	b = appendQuoted(b, string(ev.Team()), maxName)
	b = appendField(b, `,"account":`, ev.Principal.Name)
	b = appendField(b, `,"other_account":`, ev.Other)
	b = append(b, `,"scheme":"`...)
	b = append(b, ev.Scheme().String()...)
	b = append(b, `","outcome":"`...)
	b = append(b, closedOutcome(ev.Decision.Outcome)...)
	b = append(b, '"')
	b = appendField(b, `,"reason":`, string(ev.Decision.Reason))
	if reason, ok := ev.Signal(); ok {
		b = append(b, `,"code":"`...)
		b = appendCode(b, reason)
		b = append(b, '"')
	}
	b = appendField(b, `,"verdict":`, string(ev.Shadow.Verdict))
	b = appendField(b, `,"verdict_reason":`, string(ev.Shadow.Reason))
	b = appendField(b, `,"evidence":`, string(ev.Shadow.Evidence))
	b = appendField(b, `,"run":`, ev.Call.Run)
	b = appendField(b, `,"client_run":`, ev.ClientRun)
	if ev.Call.RPC {
		b = appendField(b, `,"rpc":`, ev.Call.Method)
	}
	b = appendField(b, `,"family":`, ev.Call.Family)
	if ev.Client.IsValid() {
		b = append(b, `,"client":"`...)
		b = ev.Client.WithZone("").AppendTo(b) // a zone (RFC 4007) is free text
		b = append(b, '"')
	}
	b = appendField(b, `,"asked":`, string(ev.Asked))
	b = appendField(b, `,"fault":`, ev.Fault)
	b = appendField(b, `,"user_agent":`, ev.UserAgent)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, ev.Sent, 10)
	if ev.UpstreamTime > 0 {
		b = append(b, `,"upstream_ms":`...)
		b = appendMillis(b, ev.UpstreamTime)
	}
	if ev.UpstreamErr != nil {
		b = append(b, `,"error":`...)
		b = appendQuoted(b, ev.UpstreamErr.Error(), maxError)
	}
	return append(b, '}', '\n')
}

// appendField appends key and value, which is bounded, unless it is empty. The key brings
// its comma, quotes and colon.
func appendField(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendQuoted(append(b, key...), value, maxName)
}

// appendCode appends the stable code of a signal: nothing of a client's is in it.
func appendCode(b []byte, r identity.Reason) []byte {
	b = append(b, gateway.SignalPrefix...)
	return append(b, closedReason(r)...)
}

// appendMillis appends a duration in milliseconds with three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	micros := max(d, 0).Microseconds()
	b = strconv.AppendInt(b, micros/1000, 10)
	rest := micros % 1000
	return append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// appendQuoted appends s as a JSON string (RFC 8259 section 7) of at most limit
// bytes of s. Beyond what JSON demands it escapes everything that does not
// print, so that nobody can move a terminal's cursor or turn its text around
// through a log, and replaces what is not UTF-8.
func appendQuoted(b []byte, s string, limit int) []byte {
	s, cut := bound(s, limit)
	b = append(b, '"')
	plain := 0 // s[plain:i] needs no escape
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[plain:i]...)
			b = appendEscaped(b, rune(c))
			i++
			plain = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if strconv.IsPrint(r) && !(r == utf8.RuneError && size == 1) {
			i += size
			continue
		}
		b = append(b, s[plain:i]...)
		b = appendEscaped(b, r)
		i += size
		plain = i
	}
	b = append(b, s[plain:]...)
	if cut {
		b = append(b, ellipsis...)
	}
	return append(b, '"')
}

func appendEscaped(b []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(b, '\\', byte(r))
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	if r > 0xffff { // as a surrogate pair
		r -= 0x10000
		b = appendHex(b, 0xd800+r>>10)
		return appendHex(b, 0xdc00+r&0x3ff)
	}
	return appendHex(b, r)
}

func appendHex(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&0xf], digits[r>>8&0xf], digits[r>>4&0xf], digits[r&0xf])
}

// ellipsis marks what was cut.
const ellipsis = "..."

// bound cuts s to at most limit bytes, between runes.
func bound(s string, limit int) (short string, cut bool) {
	if len(s) <= limit {
		return s, false
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit], true
}

// clip bounds s for a span or a label. Both are UTF-8 or rejected, a span
// together with all that are sent beside it, and a header may hold any bytes.
func clip(s string, limit int) string {
	short, cut := bound(s, limit)
	short = strings.ToValidUTF8(short, string(utf8.RuneError))
	if cut {
		return short + ellipsis
	}
	return short
}
