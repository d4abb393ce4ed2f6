package config

import (
	"net/netip"
	"net/url"
	"time"
)

// Config is the whole effective configuration. A value that [Load] returned
// is complete and checked; treat it as immutable, then it is safe to share
// between goroutines.
//
// The tags are the schema: koanf names the key, check names a rule of
// scalar.go, one lists the allowed words, range bounds a number, size or
// duration, and stricter says which way a limit is stricter, more or less. Of a Path, check says what must be there: a readable file, content
// that Load reads itself, a dir, or a fresh file, which is replaced too often to
// be worth watching.
type Config struct {
	// File is the configuration file that was read; empty when there was none.
	File string `koanf:"-"`

	// Mode is the platform's switch. Default observe.
	Mode     Mode     `koanf:"mode" one:"observe|enforce"`
	Listen   Listen   `koanf:"listen"`
	Metrics  Metrics  `koanf:"metrics"`
	Admin    Admin    `koanf:"admin"`
	Upstream Upstream `koanf:"upstream"`
	Legacy   Legacy   `koanf:"legacy"`
	OIDC     OIDC     `koanf:"oidc"`
	Headers  Headers  `koanf:"headers"`
	Exempt   Exempt   `koanf:"exempt"`
	// PrincipalsFile names the principals file; empty: everyone is unassigned.
	PrincipalsFile Path `koanf:"principals" check:"content"`
	// RolesFile names the roles file; empty: everyone may do everything.
	RolesFile Path `koanf:"roles" check:"content"`
	// Authorization says whether the roles of legacy-governed requests count
	// in mode enforce. Default shadow.
	Authorization Authorization `koanf:"authorization" one:"shadow|enforce"`
	Rollout       Rollout       `koanf:"rollout"`
	// Readiness says what a team's evidence must show before its percentage is
	// raised.
	Readiness Readiness `koanf:"readiness"`
	// StateDir holds what must survive a restart: the percentages last known, so
	// that a restored Redis is noticed and a retirement not forgotten. Empty:
	// nothing.
	StateDir  Path      `koanf:"state_dir"`
	Redis     Redis     `koanf:"redis"`
	Audit     Audit     `koanf:"audit"`
	AccessLog AccessLog `koanf:"access_log"`
	Shadow    Shadow    `koanf:"shadow"`
	// Probe says for whom the gateway itself obtains tokens, to see what the
	// identity provider gives them.
	Probe Probe `koanf:"probe"`
	Help  Help  `koanf:"help"`
	// Sunset is when legacy credentials end, for the header of RFC 8594; zero:
	// not announced.
	Sunset time.Time `koanf:"sunset"`
	// Drain bounds how long a stop waits for requests in flight. Default 30s.
	Drain time.Duration `koanf:"drain" range:"0s..1h"`

	// Principals are the entries of PrincipalsFile in order of name.
	Principals []Principal `koanf:"-"`
	// Roles is the content of RolesFile; nil when there is none.
	Roles *Roles `koanf:"-"`

	warnings []Mistake
	// principals knows where the entries were written; nil without a file.
	principals *document
}

// Mode is the platform's switch for the whole gateway.
type Mode string

// The modes.
const (
	ModeObserve Mode = "observe" // refuses nothing
	ModeEnforce Mode = "enforce"
)

// Authorization says whether roles count or are only evaluated.
type Authorization string

// The values of Authorization.
const (
	AuthorizationShadow  Authorization = "shadow"
	AuthorizationEnforce Authorization = "enforce"
)

// Share is a part of a whole, from 0 to 1. A percentage is another way to write
// it: 99% is 0.99.
type Share float64

// Path is the name of a file or directory. Relative paths of a file are
// already joined to that file's directory.
type Path string

// Listen is where clients connect. A plain string is the address.
type Listen struct {
	// Address is host:port. Default 127.0.0.1:8080; without a host, every
	// interface.
	Address string `koanf:"address" check:"address"`
	TLS     TLS    `koanf:"tls"`
	// TrustedProxies are the networks whose forwarded addresses are believed.
	// Default none. An address stands for itself alone.
	TrustedProxies []netip.Prefix `koanf:"trusted_proxies"`
	// ForwardAuth is the path at which the trusted proxies may ask about requests
	// that they forward themselves: nginx by auth_request, Traefik by ForwardAuth,
	// Caddy by forward_auth. Default empty: none, and every path is the upstream's. A
	// proxy that forwards to the gateway besides must keep its clients from this path:
	// they could have requests recorded that they never made.
	ForwardAuth string `koanf:"forward_auth" check:"path"`
}

// TLS names a certificate chain and its key, both PEM. Both or neither.
type TLS struct {
	Cert Path `koanf:"cert" check:"file"`
	Key  Path `koanf:"key" check:"file"`
}

// Enabled reports whether a certificate is configured.
func (t TLS) Enabled() bool { return t.Cert != "" }

// Metrics is the listener of /metrics, /livez and /readyz. A plain string is
// the address; "" and "off" disable it.
type Metrics struct {
	// Address is host:port. Default 127.0.0.1:9091. Empty: disabled.
	Address string `koanf:"address" check:"address_or_off"`
}

// Admin is the listener of the console and the admin API. A plain string is
// the address.
type Admin struct {
	// Address is host:port. Default empty: disabled, and so is "off".
	Address string `koanf:"address" check:"address_or_off"`
	TLS     TLS    `koanf:"tls"`
	// Viewers may read, Leads may also change their own team, which is the one of
	// their principal, and Operators every team. Default nobody.
	Viewers   Access `koanf:"viewers"`
	Leads     Access `koanf:"leads"`
	Operators Access `koanf:"operators"`
}

// Access names who may do something: members of any of the groups of a
// verified token, and the principals.
type Access struct {
	Groups     []string `koanf:"groups"`
	Principals []string `koanf:"principals"`
}

// Empty reports whether nobody is named.
func (a Access) Empty() bool { return len(a.Groups) == 0 && len(a.Principals) == 0 }

// Upstream is the service behind the gateway. A plain string is the URL.
type Upstream struct {
	// URL is http or https with a host, without credentials. In a configuration to
	// serve it is nil only with Listen.ForwardAuth: then the gateway forwards nothing
	// and answers proxies only.
	URL *url.URL `koanf:"url"`
	// Profile says how requests are understood. Default http.
	Profile Profile `koanf:"profile" one:"luigi|http"`
	// MaxBody bounds the body of a request that has to be read to be
	// understood (RPCs). Default 4MiB.
	MaxBody Size `koanf:"max_body" range:"1KiB..1GiB"`
	// Timeout bounds the wait for the upstream's reply headers; 0, the
	// default: no bound.
	Timeout time.Duration `koanf:"timeout" range:"0s..24h"`
	Luigi   Luigi         `koanf:"luigi"`
}

// Profile says how requests to the upstream are understood.
type Profile string

// The profiles.
const (
	ProfileLuigi Profile = "luigi"
	ProfileHTTP  Profile = "http"
)

// Luigi holds what only profile luigi knows.
type Luigi struct {
	// Abort makes a refusal to a worker one that stops it at once. Default
	// true.
	Abort bool `koanf:"abort"`
	// Grace is how long after the last good use of an identity a worker may
	// still report the end of a task that it started under it; 0: not at all.
	// Default 15m, which is also the most.
	Grace time.Duration `koanf:"grace" range:"0s..15m"`
}

// Legacy are the static credentials and how they are verified.
type Legacy struct {
	// Htpasswd is a password file of Apache's format.
	Htpasswd Path    `koanf:"htpasswd" check:"file"`
	APIKeys  APIKeys `koanf:"api_keys"`
	Bearer   Bearer  `koanf:"bearer"`
	// Concurrency bounds how many passwords are hashed at once; 0, the
	// default: one a CPU.
	Concurrency int `koanf:"concurrency" range:"0..1024"`
	// Cache is how long a verdict on a password is remembered. Default 30s.
	Cache time.Duration `koanf:"cache" range:"1s..10m"`
	// Throttle limits guesses by the address of the client and the user.
	Throttle Throttle `koanf:"throttle"`
}

// Throttle limits how many different wrong secrets are judged.
type Throttle struct {
	// Failures is how many are judged at once; 0 turns the throttle off.
	// Default 10.
	Failures int `koanf:"failures" range:"0..1000"`
	// Every is how long each one takes to be forgiven. Default 5s.
	Every time.Duration `koanf:"every" range:"1s..10m"`
}

// Configured reports whether any static credentials are configured.
func (l Legacy) Configured() bool {
	return l.Htpasswd != "" || l.APIKeys.File != "" || l.Bearer.File != ""
}

// APIKeys names a file of API keys. A plain string is the file.
type APIKeys struct {
	// Header is the request header that carries the key. Default X-API-Key.
	Header string `koanf:"header" check:"header"`
	File   Path   `koanf:"file" check:"file"`
}

// Bearer names a file of static bearer tokens. A plain string is the file.
type Bearer struct {
	File Path `koanf:"file" check:"file"`
}

// Headers are the names of the headers that tell the upstream who asks. Each
// is set by the gateway and removed from clients; "off" or "" neither sets nor
// reserves it. Defaults: those of oauth2-proxy, X-Forwarded-User and so on.
type Headers struct {
	User              string `koanf:"user" check:"header_or_off"`
	Email             string `koanf:"email" check:"header_or_off"`
	Groups            string `koanf:"groups" check:"header_or_off"`
	AuthRequestUser   string `koanf:"auth_request_user" check:"header_or_off"`
	AuthRequestEmail  string `koanf:"auth_request_email" check:"header_or_off"`
	AuthRequestGroups string `koanf:"auth_request_groups" check:"header_or_off"`
}

// Exempt is what is answered without identity. A plain list is the paths.
type Exempt struct {
	// Paths are compared exactly.
	Paths []string `koanf:"paths" check:"path"`
}

// Rollout is where percentages come from.
type Rollout struct {
	// Dir holds one file a team; empty: percentages are set by command or API.
	Dir Path `koanf:"dir" check:"dir"`
	// ColdStart says what a start without Redis does. Default refuse.
	ColdStart ColdStart `koanf:"cold_start" one:"refuse|snapshot"`
	// Stickiness is what a percentage selects. Default pipeline for profile
	// luigi and principal for http.
	Stickiness Stickiness `koanf:"stickiness" one:"pipeline|principal|run"`
}

// ColdStart says what a start without Redis does.
type ColdStart string

// The values of ColdStart.
const (
	ColdStartRefuse   ColdStart = "refuse"
	ColdStartSnapshot ColdStart = "snapshot" // from the state directory
)

// Stickiness is what a percentage selects.
type Stickiness string

// The values of Stickiness.
const (
	StickinessPipeline  Stickiness = "pipeline"
	StickinessPrincipal Stickiness = "principal"
	StickinessRun       Stickiness = "run"
)

// Redis is the store. A plain string is the URL. Without a URL an in-process
// one is used, forgotten on exit.
type Redis struct {
	// URL is redis://, rediss:// or unix://, as go-redis reads it.
	URL SecretURL `koanf:"url" check:"redis"`
	// URLFile holds the URL instead; [Load] has read it into URL.
	URLFile  Path   `koanf:"url_file" check:"content"`
	Username string `koanf:"username"`
	Password Secret `koanf:"password"`
	// PasswordFile holds the password instead; [Load] has read it into
	// Password, without the line break at its end.
	PasswordFile Path `koanf:"password_file" check:"content"`
	// Prefix begins every key. Default crossfade.
	Prefix string `koanf:"prefix" check:"prefix"`
	// CAFile verifies the server of a rediss:// URL instead of the system's
	// authorities.
	CAFile Path `koanf:"ca_file" check:"file"`
}

// InProcess reports whether no Redis is configured.
func (r Redis) InProcess() bool { return r.URL.Empty() }

// Audit is the audit trail. A plain string is the file.
type Audit struct {
	// File is where lines are kept; files that are full stay beside it under
	// names of their own. Empty, the default: none.
	File Path `koanf:"file"`
	// Stdout writes the lines to the standard output, too. Default false.
	Stdout bool `koanf:"stdout"`
	// Required refuses, in mode enforce, requests that cannot be recorded.
	// Default false.
	Required bool `koanf:"required"`
	// Parameters are the names of task parameters whose values may be recorded.
	// Default none: then only their names are.
	Parameters []string `koanf:"parameters"`
	// MaxSize and MaxAge are when a file is full. Default 100MiB and 24h.
	MaxSize Size          `koanf:"max_size" range:"64KiB..64GiB"`
	MaxAge  time.Duration `koanf:"max_age" range:"1m..366d"`
}

// Off reports whether no audit trail is wanted.
func (a Audit) Off() bool { return a.File == "" && !a.Stdout }

// AccessLog is where the one event of each request is written. A plain string
// is the file.
type AccessLog struct {
	// File is a path, "-" for the standard output, "" (the default) for the
	// standard error or "off".
	File   Path      `koanf:"file" check:"output"`
	Format LogFormat `koanf:"format" one:"auto|json|text"`
}

// Off reports whether no access log is wanted.
func (a AccessLog) Off() bool { return a.File == "off" }

// LogFormat is how log lines look.
type LogFormat string

// The log formats. LogAuto is text on a terminal and JSON elsewhere.
const (
	LogAuto LogFormat = "auto"
	LogJSON LogFormat = "json"
	LogText LogFormat = "text"
)

// Shadow bounds the evaluation off the hot path.
type Shadow struct {
	// Queue is how many evaluations may wait; more are shed. Default 1024.
	Queue int `koanf:"queue" range:"1..1000000"`
	// Workers is how many run at once. Default 4.
	Workers int `koanf:"workers" range:"1..1024"`
	// Timeout bounds one evaluation. Default 5s.
	Timeout time.Duration `koanf:"timeout" range:"10ms..5m"`
}

// Help stands in every refusal. A plain string is the URL.
type Help struct {
	URL     string `koanf:"url" check:"http_url"`
	Contact string `koanf:"contact"`
}

// Default returns the configuration before any file, variable or flag.
func Default() *Config {
	return &Config{
		Mode:    ModeObserve,
		Listen:  Listen{Address: "127.0.0.1:8080"},
		Metrics: Metrics{Address: "127.0.0.1:9091"},
		Upstream: Upstream{
			Profile: ProfileHTTP,
			MaxBody: 4 * MiB,
			Luigi:   Luigi{Abort: true, Grace: 15 * time.Minute},
		},
		Legacy: Legacy{
			APIKeys: APIKeys{Header: "X-API-Key"}, Cache: 30 * time.Second,
			Throttle: Throttle{Failures: 10, Every: 5 * time.Second},
		},
		OIDC: OIDC{Inline: defaultIssuer()},
		Headers: Headers{
			User:              "X-Forwarded-User",
			Email:             "X-Forwarded-Email",
			Groups:            "X-Forwarded-Groups",
			AuthRequestUser:   "X-Auth-Request-User",
			AuthRequestEmail:  "X-Auth-Request-Email",
			AuthRequestGroups: "X-Auth-Request-Groups",
		},
		Authorization: AuthorizationShadow,
		Rollout:       Rollout{ColdStart: ColdStartRefuse},
		Readiness:     defaultReadiness(),
		Redis:         Redis{Prefix: "crossfade"},
		Audit:         Audit{MaxSize: 100 * MiB, MaxAge: 24 * time.Hour},
		AccessLog:     AccessLog{Format: LogAuto},
		Shadow:        Shadow{Queue: 1024, Workers: 4, Timeout: 5 * time.Second},
		Probe:         Probe{Every: time.Hour, PerMinute: 6, Timeout: 15 * time.Second},
		Drain:         30 * time.Second,
	}
}
