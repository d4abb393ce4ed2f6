package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"
)

// scalar checks one value. The text it returns is in the form that the final
// decoding takes.
func (l *loader) scalar(d *document, path string, s spec, n *yaml.Node) (any, bool) {
	refuse := func(suggestion, format string, args ...any) (any, bool) {
		// What stands before an @ may be a password, in whatever key it is.
		switch {
		case s.secret() || strings.Contains(n.Value, "@"):
			suggestion = ""
		case n.Value != "":
			format += ", not %q"
			args = append(args, clip(n.Value))
		}
		l.at(d, path, n, suggestion, format, args...)
		return nil, false
	}
	switch s.typ.Kind() {
	case reflect.Bool:
		switch n.Value {
		case "true":
			return true, true
		case "false":
			return false, true
		}
		return refuse("", "must be true or false")
	case reflect.Int:
		i, err := strconv.Atoi(n.Value)
		if err != nil {
			return refuse("", "must be a whole number")
		}
		if !within(s, func(bound string) int { b, _ := strconv.Atoi(bound); return i - b }) {
			return refuse("", "must be %s", describe(s))
		}
		return int64(i), true
	case reflect.Float64:
		v, ok := parseNumber(s, n.Value)
		if !ok {
			return refuse("", "must be %s", describe(s))
		}
		if inRange := func(v float64) bool {
			return within(s, func(bound string) int { b, _ := strconv.ParseFloat(bound, 64); return cmp.Compare(v, b) })
		}; !inRange(v) {
			suggestion := ""
			if s.typ == reflect.TypeFor[Share]() && v >= 1 && inRange(v/100) && !strings.HasSuffix(n.Value, "%") {
				suggestion = n.Value + "%"
			}
			return refuse(suggestion, "must be %s", describe(s))
		}
		return v, true
	}
	if n.ShortTag() == "!!bool" && s.one == nil {
		return refuse("", "must be %s (put it in quotes if it is meant as text)", describe(s))
	}
	if s.one != nil && !slices.Contains(s.one, n.Value) {
		return refuse(nearest(n.Value, s.one), "must be %s", describe(s))
	}
	text, suggestion, err := parse(s, n.Value)
	if err != nil {
		return refuse(suggestion, "%s", err)
	}
	if s.typ == reflect.TypeFor[Path]() && !isWord(s, text) {
		text = d.resolve(text)
	}
	return text, true
}

// isWord reports whether a path is one of the words of an output: "-", "off".
func isWord(s spec, text string) bool {
	return s.check == "output" && (text == "-" || text == "off")
}

// clip shortens a value for a message.
func clip(text string) string {
	const most = 80
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// within reports whether a value lies in the range of s. compare returns the
// sign of value minus bound.
func within(s spec, compare func(bound string) int) bool {
	low, high, ok := strings.Cut(s.span, "..")
	return !ok || compare(low) >= 0 && compare(high) <= 0
}

// parseNumber reads a decimal number, of a share also one with a percent sign. A
// percentage is the number that its text is nearest to: 0.1% is 0.001.
func parseNumber(s spec, text string) (float64, bool) {
	number := text
	if percent, ok := strings.CutSuffix(text, "%"); ok && s.typ == reflect.TypeFor[Share]() {
		if strings.ContainsAny(percent, "eE") {
			return 0, false
		}
		number = percent + "e-2"
	}
	// What else Go reads as a number is no decimal: 0x1p-2, Inf, NaN, 1_0.
	if strings.ContainsFunc(number, func(r rune) bool { return !strings.ContainsRune("0123456789.eE+-", r) }) {
		return 0, false
	}
	v, err := strconv.ParseFloat(number, 64)
	return v, err == nil
}

// parse returns the canonical text of a value, or what it must be.
func parse(s spec, text string) (canonical, suggestion string, err error) {
	switch s.typ {
	case reflect.TypeFor[time.Duration]():
		v, err := ParseDuration(text)
		if err != nil {
			if _, numeric := strconv.Atoi(text); numeric == nil {
				suggestion = text + "s"
			}
			return "", suggestion, fmt.Errorf("must be %s", describe(s))
		}
		if !within(s, func(bound string) int { b, _ := ParseDuration(bound); return sign(v - b) }) {
			return "", "", fmt.Errorf("must be %s", describe(s))
		}
		return FormatDuration(v), "", nil
	case reflect.TypeFor[Size]():
		var v Size
		if err := v.UnmarshalText([]byte(text)); err != nil || !within(s, func(bound string) int {
			var b Size
			_ = b.UnmarshalText([]byte(bound))
			return sign(v - b)
		}) {
			return "", "", fmt.Errorf("must be %s", describe(s))
		}
		return v.String(), "", nil
	case reflect.TypeFor[time.Time]():
		for _, layout := range []string{time.RFC3339, time.DateOnly} {
			if v, err := time.Parse(layout, text); err == nil {
				return v.UTC().Format(time.RFC3339Nano), "", nil
			}
		}
		return "", "", fmt.Errorf("must be %s", describe(s))
	case reflect.TypeFor[netip.Prefix]():
		if v, err := netip.ParsePrefix(text); err == nil {
			return v.Masked().String(), "", nil
		}
		if v, err := netip.ParseAddr(text); err == nil && v.Zone() == "" {
			return netip.PrefixFrom(v, v.BitLen()).String(), "", nil
		}
		return "", "", fmt.Errorf("must be %s", describe(s))
	case reflect.TypeFor[*url.URL]():
		suggestion, err := checkURL(text, "http", "https")
		return text, suggestion, err
	}
	suggestion, err = checkText(s, text)
	if err == nil && strings.HasSuffix(s.check, "_or_off") && text == "off" {
		text = ""
	}
	return text, suggestion, err
}

func sign[T ~int64](d T) int {
	switch {
	case d < 0:
		return -1
	case d > 0:
		return 1
	default:
		return 0
	}
}

// checkText applies the rule that a field's check tag names.
func checkText(s spec, text string) (suggestion string, err error) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) && !s.secret() {
		return "", errors.New("must be one line without control characters")
	}
	if strings.HasSuffix(s.check, "_or_off") && (text == "off" || text == "") {
		return "", nil
	}
	switch s.check {
	case "address", "address_or_off":
		return checkAddress(text)
	case "http_url":
		return checkURL(text, "http", "https")
	case "https_url":
		return checkSecureURL(text)
	case "issuer":
		return checkIssuer(text)
	case "redis":
		return "", checkRedis(text)
	case "header", "header_or_off":
		return "", checkHeader(text)
	case "path":
		return "", checkRequestPath(text)
	case "prefix":
		if text == "" || strings.ContainsAny(text, "{}: \t*?[]") {
			return "", errors.New("must be a word without spaces, colons, braces and wildcards")
		}
	case "agent_listen":
		return checkAgentListen(text)
	case "run_id":
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
		if text == "" || len(text) > 128 || strings.Trim(text, letters) != "" {
			return "", errors.New("must be 1 to 128 of A-Z, a-z, 0-9, dot, underscore, colon and hyphen")
		}
	case "output", "hours":
	default:
		if text == "" && s.check != "" {
			return "", errors.New("must not be empty: give a path or remove the key")
		}
		if text == "" && s.typ != reflect.TypeFor[Path]() {
			return "", errors.New("must not be empty")
		}
	}
	return "", nil
}

// describe says what may stand at s.
func describe(s spec) string {
	switch {
	case len(s.one) > 1:
		last := len(s.one) - 1
		return strings.Join(s.one[:last], ", ") + " or " + s.one[last]
	case s.typ == reflect.TypeFor[time.Duration]():
		return durationLike + spanWords(s)
	case s.typ == reflect.TypeFor[Size]():
		return "a size like 512KiB or 4MiB" + spanWords(s)
	case s.typ == reflect.TypeFor[time.Time]():
		return "a date like 2027-03-31 or a time like 2027-03-31T18:00:00Z"
	case s.typ == reflect.TypeFor[netip.Prefix]():
		return "a network like 10.0.0.0/8 or an address like 10.1.2.3"
	case s.typ.Kind() == reflect.Bool:
		return "true or false"
	case s.typ.Kind() == reflect.Int:
		return "a whole number" + spanWords(s)
	case s.typ == reflect.TypeFor[Share]():
		return "a share like 0.01 or 1%" + spanWords(s)
	case s.typ.Kind() == reflect.Float64:
		return "a number" + spanWords(s)
	case s.typ == reflect.TypeFor[Path]():
		return "a path"
	case s.leaf():
		return "text"
	case s.typ.Kind() == reflect.Struct:
		var names []string
		for _, f := range fields(s.typ) {
			names = append(names, f.name)
		}
		return "a mapping with " + strings.Join(names, ", ")
	default:
		return "a list"
	}
}

func spanWords(s spec) string {
	low, high, ok := strings.Cut(s.span, "..")
	if !ok {
		return ""
	}
	return " from " + low + " to " + high
}

// checkAddress wants host:port; the host may be empty.
func checkAddress(text string) (suggestion string, err error) {
	wrong := errors.New("must be an address like 127.0.0.1:8082 or :8082")
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		if _, numeric := strconv.ParseUint(text, 10, 16); numeric == nil {
			suggestion = ":" + text
		}
		return suggestion, wrong
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", wrong
	}
	if strings.ContainsAny(host, " /@") {
		return "", wrong
	}
	return "", nil
}

// checkAgentListen wants a place that nobody but this machine reaches.
func checkAgentListen(text string) (suggestion string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return "", errors.New("must name the socket: unix:PATH")
		}
		return "", nil
	}
	if suggestion, err = checkAddress(text); err != nil {
		return suggestion, errors.New("must be an address like 127.0.0.1:8182 or a socket like unix:/run/crossfade/agent.sock")
	}
	host, port, _ := net.SplitHostPort(text)
	if !loopback(host) {
		return "127.0.0.1:" + port, errors.New("must be a loopback address or unix:PATH: others would reach the agent and use its token")
	}
	return "", nil
}

// checkURL wants an absolute URL of one of the schemes, without credentials.
func checkURL(text string, schemes ...string) (suggestion string, err error) {
	u, err := url.Parse(text)
	like := errors.New("must be a URL like " + schemes[0] + "://host:port")
	if text != "" && !strings.Contains(text, "://") {
		guess := schemes[0] + "://" + strings.TrimLeft(text, "/")
		if g, err := url.Parse(guess); err == nil && g.Hostname() != "" {
			suggestion = guess
		}
		return suggestion, like
	}
	switch {
	case err != nil:
		return "", like
	case u.User != nil:
		return "", errors.New("must be a URL without user and password")
	case !slices.Contains(schemes, u.Scheme) || u.Hostname() == "":
		if u.Scheme != "" && u.Host != "" {
			return "", errors.New("must be a URL that begins with " + strings.Join(schemes, ":// or ") + "://")
		}
		return "", like
	}
	return "", nil
}

// checkSecureURL wants https; http is good enough on the machine itself.
func checkSecureURL(text string) (suggestion string, err error) {
	if suggestion, err := checkURL(text, "https", "http"); err != nil {
		return suggestion, err
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", err
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return "https" + strings.TrimPrefix(text, "http"), errors.New("must begin with https:// (http:// is for loopback only)")
	}
	return "", nil
}

// checkIssuer follows OpenID Connect Discovery 1.0 section 3: https, no query,
// no fragment.
func checkIssuer(text string) (suggestion string, err error) {
	if suggestion, err := checkSecureURL(text); err != nil {
		return suggestion, err
	}
	if issuer, discovery := strings.CutSuffix(text, "/.well-known/openid-configuration"); discovery {
		return issuer, errors.New("must be the issuer itself, without the path of its discovery document")
	}
	if strings.ContainsAny(text, "?#") {
		return "", errors.New("must be a URL without query and fragment")
	}
	return "", nil
}

// checkRedis never quotes the URL: it may hold a password.
func checkRedis(text string) error {
	u, err := url.Parse(text)
	wrong := errors.New("must be a URL like redis://host:6379/0, rediss://host:6379/0 or unix:///path")
	switch {
	case err != nil:
		return wrong
	case u.Scheme == "unix" && u.Path != "":
		return nil
	case (u.Scheme == "redis" || u.Scheme == "rediss") && u.Hostname() != "":
		return nil
	default:
		return wrong
	}
}

// checkHeader wants a header name that carries nothing else (RFC 9110 section
// 5.1 and 7.6.1).
func checkHeader(text string) error {
	if !httpguts.ValidHeaderFieldName(text) {
		return errors.New("must be a header name like X-API-Key")
	}
	taken := []string{
		"authorization", "proxy-authorization", "crossfade-token", "connection", "host", "cookie",
		"content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade", "expect",
	}
	if slices.Contains(taken, strings.ToLower(strings.ReplaceAll(text, "_", "-"))) {
		return errors.New("must be a header that has no meaning of its own")
	}
	return nil
}

// checkRequestPath wants a path as the request line spells it.
func checkRequestPath(text string) error {
	switch {
	case !strings.HasPrefix(text, "/") || strings.ContainsAny(text, "?# "):
		return errors.New("must be a path that begins with / and has no query")
	case strings.ContainsAny(text, "*"):
		return errors.New("must be an exact path (a wildcard would mean more than is meant)")
	case path.Clean(text) != text && path.Clean(text)+"/" != text:
		return errors.New("must be a path without // and . segments")
	default:
		return nil
	}
}

// loopback reports whether host is this machine by name or address.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
